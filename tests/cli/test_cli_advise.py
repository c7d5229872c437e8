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
    """The first word is the model; the command that is suggested parses, and trains what was suggested."""
    content = run("model --task data.jsonl --parameters 100")
    said = capsys.readouterr().out
    assert "gain / 1,000 parameters" in said
    assert content["command"] in said
    assert Path("runs/data/advice/advice.svg").read_text().startswith("<?xml")
    assert len(content["ranking"]) == 4 * 7 * 4  # sites, a vector and six ranks, all layers, thirds of one layer each
    words = shlex.split(content["command"])[1:]
    parsed = build_parser(VERBS).parse_args(words)["train"].as_dict()
    assert parsed["model"] == "model"
    assert parsed["layers"] is not None  # a tiny budget: not every layer


def test_settings_reach_the_measurement(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Sites, layers, ranks, what is read, which tokens, how many examples."""
    content = run(
        "model --task data.jsonl --sites '[mlp,heads]' --layers '[0,2]' --ranks '[2]' --normalize false "
        "--positions 'all_but_first(1)' --examples 3 --rows 3"
    )
    assert (content["sites"], content["layers"], content["normalize"]) == (["mlp", "heads"], [0, 2], False)
    assert content["answer_tokens"] == 3 * 2  # "=b" is two bytes
    assert "--positions 'all_but_first(1)'" in content["command"]
    rows = [line for line in capsys.readouterr().out.splitlines() if re.match(r"\W*(mlp|heads)\s", line)]
    assert len(rows) == 3
    best = sorted(content["ranking"], key=lambda row: -row["gain_per_parameter"])[0]
    assert re.match(rf"\W*{best['site']}\W+{', '.join(map(str, best['layers']))}\W", rows[0])


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
