"""benchmarks/advisor.py and gradient_start.py on a tiny model: what they report is what they have measured."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from tiny_directory import save_tiny_model
from trimtab.training import run as training_run

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
WORDS = ["ab", "bcd", "c", "de", "efg", "fa", "gb", "hcd"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model and a task of eight training and four validation examples."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    save_tiny_model(tmp_path / "model")
    lines = [json.dumps({"prompt": f"{word}\n", "completion": f"={word[-1]}"}) + "\n" for word in WORDS]
    (tmp_path / "train.jsonl").write_text("".join(lines))
    for name in ("validation", "test"):  # other prompts in each
        (tmp_path / f"{name}.jsonl").write_text("".join(lines[:4]).replace("\\n", f" {name}\\n"))
    task = {**{name: f"{name}.jsonl" for name in ("train", "validation", "test")}, "max_new_tokens": 2}
    (tmp_path / "task.yaml").write_text(json.dumps(task))
    return tmp_path


def run(script: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    """Call a script with the tiny sizes."""
    common = ["--model", str(folder / "model"), "--task", str(folder / "task.yaml"), "--dtype", "float32"]
    places = [word for name in ("runs", "results", "docs") for word in (f"--{name}", str(folder / name))]
    monkeypatch.setattr(
        sys, "argv", ["script", *common, *places, "--validation", "4", "--answers", "2", "--threads", "1", *words]
    )
    script.main()


@pytest.mark.slow
def test_the_advisor_is_compared_with_trained_adapters(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fourteen places; measured is base minus the best rate; rho is scipy's; a second start trains nothing."""
    script = importlib.import_module("advisor")
    # Three steps: in the first one the rate is still zero.
    words = ("--examples", "6", "--batch_size", "2", "--advice_examples", "4", "--rank", "2", "--rates", "1e-3", "1e-2")
    run(script, folder, monkeypatch, *words, "--vector_rates", "1e-2")
    found = json.loads((folder / "results" / "advisor.json").read_text())
    rows = found["rows"]
    labels = ["first third, r=2", "middle third, r=2", "last third, r=2", "block, vector"]
    assert [row["label"] for row in rows][4:8] == labels
    assert [len(row["trained"]) for row in rows] == [2] * 7 + [1] * 7
    for row in rows:
        assert row["parameters"] == row["trained"][0]["parameters"]
        assert row["measured"] == found["base"]["loss"] - min(one["loss"] for one in row["trained"])
    for name, groups in found["spearman"].items():
        wanted = spearmanr([row["predicted"][name] for row in rows], [row["measured"] for row in rows]).statistic
        assert groups["all"]["rho"] == pytest.approx(wanted)
        assert [one["n"] for one in groups.values()] == [14, 7, 7]
    assert list(found["spearman_per_parameter"]) == [*found["spearman"], "fewer parameters first"]
    monkeypatch.setattr(training_run, "CompletionTrainer", None)
    run(script, folder, monkeypatch, *words, "--vector_rates", "1e-2")
    assert json.loads((folder / "results" / "advisor.json").read_text())["rows"] == rows
    assert (folder / "docs" / "assets" / "advice.svg").exists()
    lines = (folder / "results" / "advisor.md").read_text().splitlines()
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines[2:16]] == [row["label"] for row in rows]
    assert len(lines) == 2 + 14 + 2 * (1 + 2 + len(found["spearman"])) + 1
    for file in ("advisor.json", "advisor.md"):  # from the rows alone they come out the same
        (folder / "measured" / file).parent.mkdir(exist_ok=True)
        shutil.copy(folder / "results" / file, folder / "measured" / file)
    (folder / "measured" / "advisor.json").write_text(json.dumps({**found, "spearman": {}}))
    with monkeypatch.context() as patch:
        patch.setattr(script, "load_model", None)
        run(script, folder, patch, "--measured", "--results", str(folder / "measured"))
    for file in ("advisor.json", "advisor.md"):
        assert (folder / "measured" / file).read_text() == (folder / "results" / file).read_text()
    with pytest.raises(ValueError, match="holds a run with other settings"):
        run(script, folder, monkeypatch, *words[2:], "--examples", "4", "--vector_rates", "1e-2")


def test_correlations_per_parameter_divide_both_sides(folder: Path) -> None:
    """Of made-up rows, against scipy on quotients; with equal measured gains, size alone is always right."""
    report = importlib.import_module("_advisor_report")
    draw = np.random.default_rng(0)
    rows = [
        {"rank": rank, "parameters": size, "measured": 1.0, "predicted": {"one": gain}}
        for rank, size, gain in zip([8] * 4 + [None] * 4, range(100, 900, 100), draw.uniform(1, 9, 8), strict=True)
    ]
    found = report.per_parameter_correlations(rows)
    assert [one["rho"] for one in found["fewer parameters first"].values()] == pytest.approx([1.0] * 3)
    for name, part in (("all", rows), ("maps", rows[:4]), ("vectors", rows[4:])):
        quotients = np.array([[r["predicted"]["one"], r["measured"]] for r in part]) / [[r["parameters"]] for r in part]
        wanted = spearmanr(*quotients.T)
        assert found["one"][name] == {"rho": pytest.approx(wanted.statistic), "n": len(part), "p": wanted.pvalue}


@pytest.mark.slow
def test_both_starts_are_scored_after_the_same_steps(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two starts and seeds, from the same base; the scores at the last step are those of the finished adapters."""
    script = importlib.import_module("gradient_start")
    run(
        script,
        folder,
        monkeypatch,
        "--steps",
        "1",
        "2",
        "--batch_size",
        "4",
        "--seeds",
        "0",
        "3",
        "--rates",
        "1e-3",
        "1e-2",
    )
    found = json.loads((folder / "results" / "gradient_start.json").read_text())
    assert list(found["tried"]) == ["random", "gradient"]
    for start, by_rate in found["tried"].items():
        final = {}
        for rate, of_seeds in by_rate.items():
            assert [one["seed"] for one in of_seeds] == [0, 3]
            for one in of_seeds:
                assert list(one["scores"]) == ["0", "1", "2"]
                (finished,) = (folder / "runs" / f"{start}-{rate}-{one['seed']}").glob("score-*.json")
                assert json.loads(finished.read_text())["loss"] == pytest.approx(one["scores"]["2"]["loss"], rel=1e-5)
            final[float(rate)] = sum(one["scores"]["2"]["loss"] for one in of_seeds)
        assert found["rates"][start] == min(final, key=final.get)
    assert (folder / "results" / "gradient_start.md").read_text().count("\n| ") == 1 + 2 * 2 * 2
    assert (folder / "docs" / "assets" / "gradient-start.svg").exists()


def curves(what: str, values: list[float]) -> list[dict[str, Any]]:
    """One seed with these values after 0, 100, 200 and 400 steps."""
    return [{"scores": {str(step): {what: value} for step, value in zip((0, 100, 200, 400), values, strict=True)}}]


@pytest.mark.parametrize(("what", "sign"), [("loss", 1), ("accuracy", -1)])
def test_steps_to_reach_are_read_off_the_curve(folder: Path, what: str, sign: int) -> None:
    """Half way between two scored steps; never, where the loss is not reached; an accuracy has to rise."""
    script = importlib.import_module("gradient_start")
    random, gradient = ([sign * value for value in values] for values in ([4, 3, 2, 0.5], [4, 2, 1.5, 1]))
    found = script.steps_to_reach({"random": curves(what, random), "gradient": curves(what, gradient)}, what)
    assert found == {"100": pytest.approx(50), "200": pytest.approx(100), "400": None}
