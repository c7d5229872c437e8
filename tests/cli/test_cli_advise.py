"""The verb `advise`: what it prints and writes, and that what it suggests can be run."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tiny_directory import save_tiny_model
from trimtab.cli.advise import advise
from trimtab.cli.parser import UsageError, build_parser, call
from trimtab.cli.verbs import VERBS

ROWS = [{"prompt": f"{word}\n", "completion": f"={word[-1]}"} for word in ("ab", "bc", "cde", "def")]
Run = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, written once."""
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def run(saved_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The verb in an empty folder with a model and some data; gives what it has written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Path("model").symlink_to(saved_model)
    Path("data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    parser = build_parser({"advise": advise})

    def advised(line: str) -> dict[str, Any]:
        words = f"advise {line} --device cpu --dtype float32 --batch_size 2"
        call(advise, parser.parse_args(shlex.split(words))["advise"].as_dict())
        return json.loads(Path("runs/data/advice/advice.json").read_text())

    return advised


def test_a_table_a_file_a_figure_and_a_command(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """The first word is the model; each kind has a command that parses, and trains what was suggested."""
    content = run("model --task data.jsonl --parameters 70")
    said = capsys.readouterr().out
    assert "gain / 1,000 parameters" in said
    assert said.index("maps by gain per parameter") < said.index("vectors by gain per parameter")
    assert content["caveat"] in said
    assert Path("runs/data/advice/advice.svg").read_text().startswith("<?xml")
    sites, places = 4, 4  # all layers, thirds of one layer each
    assert {kind: len(rows) for kind, rows in content["rankings"].items()} == {
        "map": sites * 6 * places,
        "vector": sites * places,
    }
    assert list(content["suggestions"]) == ["map", "vector"]
    for kind, suggestion in content["suggestions"].items():
        assert suggestion["command"] in said
        assert suggestion["parameters"] <= 70
        parsed = build_parser(VERBS).parse_args(shlex.split(suggestion["command"])[1:])["train"].as_dict()
        assert (parsed["model"], parsed["layers"]) == ("model", suggestion["layers"])  # a tiny budget: not every layer
        assert (parsed["r"] if kind == "map" else None) == suggestion["rank"]


def test_a_budget_too_small_for_a_map_suggests_a_vector_alone(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Of 32 parameters, as wide as the model is; it is said that no map is so small."""
    content = run("model --task data.jsonl --sites '[mlp]' --parameters 32")
    assert list(content["suggestions"]) == ["vector"]
    said = capsys.readouterr().out
    assert "map: none is so small" in said
    assert "Train both" not in said


def test_a_rank_wider_than_every_site_is_an_error_before_anything_is_measured(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is suggested in its place; nothing is written."""
    monkeypatch.setattr("trimtab.cli.advise.measure", None)
    with pytest.raises(ValueError, match=r"wide, too little for rank 1,000: give at most 32"):
        run("model --task data.jsonl --ranks '[1,1000]'")
    assert not Path("runs").exists()


def test_settings_reach_the_measurement(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Sites, layers, ranks, what is read, which tokens, how many examples."""
    content = run(
        "model --task data.jsonl --sites '[mlp,heads]' --layers '[0,2]' --ranks '[2]' --normalize false "
        "--positions 'all_but_first(1)' --examples 3 --rows 3"
    )
    assert (content["sites"], content["layers"], content["normalize"]) == (["mlp", "heads"], [0, 2], False)
    assert content["answer_tokens"] == 3 * 2  # "=b" is two bytes
    assert all("--positions 'all_but_first(1)'" in each["command"] for each in content["suggestions"].values())
    rows = [line for line in capsys.readouterr().out.splitlines() if re.match(r"\W*(mlp|heads)\s", line)]
    assert len(rows) == 2 * 3
    for kind, row in (("map", rows[0]), ("vector", rows[3])):
        of_rank = [each for each in content["rankings"][kind] if each["rank"] in (None, 2)]
        best = max(of_rank, key=lambda each: each["gain_per_parameter"])
        what = "r=2" if kind == "map" else "vector"
        assert re.match(rf"\W*{best['site']}\W+{', '.join(map(str, best['layers']))}\W+{what}\W", row)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--task data.jsonl --sites '[blok]'", "Did you mean 'block'"),
        ("--task data.jsonl --ranks '[0]'", "ranks="),
        ("--task data.jsonl --ball spectrall", "Did you mean 'spectral'"),
        ("--task data.jsonl --radius absolut", "Did you mean 'absolute'"),
        ("--task data.jsonl --examples 0", "examples=0"),
        ("--task listops-smal", "Did you mean 'listops-small'"),
        ("--task data.jsonl --positions last_promt", "Did you mean 'last_prompt'"),
    ],
)
def test_mistakes_are_usage_errors_before_a_model_is_loaded(run: Run, line: str, message: str) -> None:
    """The model does not even exist."""
    with pytest.raises(UsageError, match=message):
        run(f"nowhere {line}")


def test_an_advice_is_not_overwritten(run: Run) -> None:
    """Unless it is asked for."""
    run("model --task data.jsonl --sites '[mlp]' --ranks '[1]'")
    with pytest.raises(FileExistsError, match="holds an advice"):
        run("model --task data.jsonl")
    assert run("model --task data.jsonl --overwrite")["sites"] == ["block", "mlp", "mlp_input", "attention"]
