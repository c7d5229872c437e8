"""benchmarks/rank.py, drift.py and study.py on a small sweep: they read what a sweep leaves."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from sweeps.small_sweep import small_recipe
from trimtab.sweeps import load_cells, load_results, sweep

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
METHODS = [
    {"method": "post-block", "r": 1, "label": "rank 1"},
    {"method": "post-block-nonlinear", "r": 2, "label": "silu, rank 2"},
    {"method": "lora", "r": 2},
    "sft",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a sweep of four methods at one rate."""
    folder = tmp_path_factory.mktemp("sweep")
    training = {"batch_size": 4, "max_steps": 2, "dtype": "float32"}
    recipe = small_recipe(folder, methods=METHODS, learning_rates=[0.01], seeds=[0, 1], training=training, keep="all")
    sweep(recipe, folder / "out", probe=False)
    return folder / "out"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, finished: Path) -> Callable[..., ModuleType]:
    """Run a script on the sweep; its results and figures go to a folder of the test's own."""

    def ran(name: str, *options: str) -> ModuleType:
        monkeypatch.syspath_prepend(str(BENCHMARKS))
        module = importlib.import_module(name)
        folders = ["--sweep", str(finished), "--results", str(tmp_path), "--docs", str(tmp_path / "docs")]
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *folders, *options])
        module.main()
        return module

    return ran


def test_rank(script: Callable[..., ModuleType], tmp_path: Path) -> None:
    """A curve for each kind, with the accuracy of the sweep; LoRA and full fine-tuning are not among them."""
    script("rank")
    curves = json.loads((tmp_path / "rank.json").read_text(encoding="utf-8"))["curves"]
    assert [(each["activation"], each["points"][0]["rank"]) for each in curves] == [("linear", 1), ("silu", 2)]
    assert "rank" in (tmp_path / "docs" / "assets" / "rank-curves.svg").read_text(encoding="utf-8")


def test_drift(script: Callable[..., ModuleType], finished: Path, tmp_path: Path) -> None:
    """Every method, its drift averaged over the seeds; only what has a dial is measured at several strengths."""
    script("drift", "--max_texts", "2", "--strengths", "1", "2", "--batch_tokens", "128")
    methods = json.loads((tmp_path / "drift.json").read_text(encoding="utf-8"))["methods"]
    assert [each["method"] for each in methods] == [each.method for each in load_cells(finished)]
    assert [each["drift"]["strengths"] for each in methods] == [[1, 2], [1, 2], None, None]
    for each in methods:
        assert min(map(min, each["drift"]["divergence"])) > 0
        assert len(each["runs"]) == 2
    assert (tmp_path / "drift.md").read_text(encoding="utf-8").count("±") == 3 * len(METHODS)
    assert "strength" in (tmp_path / "docs" / "assets" / "drift-by-method.svg").read_text(encoding="utf-8")


def test_the_study_compares_answers_to_the_same_examples(
    script: Callable[..., ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, finished: Path
) -> None:
    """The difference to the reference and its error, from the files of answers by numpy; both have a row."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    study = importlib.import_module("study")
    monkeypatch.setattr(study, "REFERENCE", "rank 1")
    monkeypatch.setattr(study, "QUESTIONS", {"What": ("rank 1", "silu, rank 2")})
    page = tmp_path / "docs" / "study.md"
    page.parent.mkdir()
    page.write_text("Before.\n<!-- study: What -->\nold\n<!-- end of study: What -->\nAfter.\n")
    script("study")
    found = {line["method"]: line for line in map(json.loads, (tmp_path / "study.jsonl").read_text().splitlines())}
    right: dict[str, list[list[bool]]] = {"rank 1": [], "silu, rank 2": []}
    for run in load_results(finished):
        if run.method in right:
            answers = map(json.loads, (finished / run.examples_file).read_text().splitlines())
            right[run.method].append([each["correct"] for each in sorted(answers, key=lambda each: str(each["id"]))])
    each = np.mean(right["silu, rank 2"], axis=0) - np.mean(right["rank 1"], axis=0)
    assert found["silu, rank 2"]["minus_block"] == pytest.approx(each.mean())
    assert found["silu, rank 2"]["minus_block_error"] == pytest.approx(each.std(ddof=1) / np.sqrt(len(each)))
    lines = page.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("Before.", "After.")
    assert "old" not in lines
    assert len([line for line in lines if line.startswith(("| rank 1", "| silu"))]) == 2
