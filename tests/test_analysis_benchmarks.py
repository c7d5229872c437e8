"""The benchmarks that read what a sweep leaves, on a small one."""

from __future__ import annotations

import importlib
import json
import shutil
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
    monkeypatch.setattr(study, "SPLIT", "test")
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
    assert found["silu, rank 2"]["minus_reference"] == pytest.approx(each.mean())
    assert found["silu, rank 2"]["minus_reference_error"] == pytest.approx(each.std(ddof=1) / np.sqrt(len(each)))
    lines = page.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("Before.", "After.")
    assert "old" not in lines
    assert len([line for line in lines if line.startswith(("| rank 1", "| silu"))]) == 2


def test_the_comparison_has_every_method_of_every_task(
    script: Callable[..., ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, finished: Path
) -> None:
    """A row each with its share of the model, its test score and how far it is from the reference; a panel a task."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(importlib.import_module("comparison"), "REFERENCE", "sft")
    page = tmp_path / "docs" / "comparison.md"
    page.parent.mkdir()
    (cells,) = {cell.task for cell in load_cells(finished)}
    page.write_text(f"<!-- comparison: {cells} -->\n<!-- end of comparison: {cells} -->\n")
    script("comparison")
    lines = [json.loads(line) for line in (tmp_path / "comparison.jsonl").read_text().splitlines()]
    assert [line["method"] for line in lines] == [cell.method for cell in load_cells(finished)]
    rows = {row.split(" | ")[0].strip("| "): row.split(" | ") for row in page.read_text().splitlines()}
    for line in lines:
        row = rows[line["method"]]
        assert row[1] == f"{100 * line['trainable_parameters'] / line['model_parameters']:.3g}"
        assert row[3].startswith(f"{100 * np.mean(line['accuracies']):.1f} ± ")
        assert row[-1].startswith(" |" if line["method"] == "sft" else f"{100 * line['minus_reference']:+.1f}")
    assert "accuracy" in (tmp_path / "docs" / "assets" / "comparison.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "judged", "page_name"),
    [("claims", "CLAIMS", "claims"), ("comparison_pairs", "PAIRS", "comparison"), ("gemma3_claims", "PAIRS", "claims")],
)
def test_a_claim_is_judged_by_the_answers_to_the_same_examples(
    script: Callable[..., ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    finished: Path,
    name: str,
    judged: str,
    page_name: str,
) -> None:
    """Difference and error from the files of answers by numpy; a method that was not run leaves a claim open."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    claim = importlib.import_module("claims").Claim
    lora = load_cells(finished)[2].method
    made = (claim("first", "rank 1", lora, 0.5), claim("second", "rank 1", "jola"))
    monkeypatch.setattr(importlib.import_module(name), judged, made)
    page = tmp_path / "docs" / f"{page_name}.md"
    page.parent.mkdir()
    page.write_text(f"<!-- {name}: one by one -->\n<!-- end of {name}: one by one -->\n")
    script(name)
    first, second = map(json.loads, (tmp_path / f"{name}.jsonl").read_text().splitlines())
    right: dict[str, list[list[bool]]] = {"rank 1": [], lora: []}
    for run in sorted(load_results(finished), key=lambda run: run.seed):
        if run.method in right:
            answers = map(json.loads, (finished / run.examples_file).read_text().splitlines())
            right[run.method].append([each["correct"] for each in answers])
    each = 100 * (np.array(right["rank 1"], float) - np.array(right[lora], float))
    of_examples = each.mean(0).std(ddof=1) / np.sqrt(each.shape[1])
    of_seeds = each.mean(1).std(ddof=1) / np.sqrt(len(each))
    assert list(first["tasks"].values()) == [pytest.approx([each.mean(), np.sqrt(of_examples**2 + of_seeds**2)])]
    assert (first["mean"], first["error"]) == pytest.approx(next(iter(first["tasks"].values())))
    assert second["verdict"] == "not run"
    assert f"{each.mean():+.1f} ± " in page.read_text()


@pytest.mark.parametrize("split", ["validation", "test"])
def test_methods_are_compared_with_lora_over_seeds_and_examples(
    script: Callable[..., ModuleType], tmp_path: Path, finished: Path, split: str
) -> None:
    """Difference and error by numpy from the files of answers; LoRA's own row has none."""
    folder = tmp_path / "validated"
    shutil.copytree(finished, folder)
    lines = (folder / "cells.jsonl").read_text().splitlines()
    cells = [json.loads(line) for line in lines]
    (folder / "cells.jsonl").write_text("".join(json.dumps({**each, "split": split}) + "\n" for each in cells))
    page = tmp_path / "docs" / "against-lora.md"
    page.parent.mkdir()
    page.write_text("<!-- validated: seeds -->\n<!-- end of validated: seeds -->\n")
    script("against_lora", "--sweep", str(folder))
    records = {run.run: run for run in load_results(finished)}
    right = {
        cell["method"]: np.array(
            [
                [
                    json.loads(line)["correct"]
                    for line in (finished / records[run].examples_file).read_text().splitlines()
                ]
                for run in cell["runs"]
            ],
            float,
        )
        for cell in cells
    }
    lora = next(cell["method"] for cell in cells if cell["family"] == "lora")
    rows = {row.split(" | ")[0].strip("| "): row for row in page.read_text().splitlines() if row.startswith("| ")}
    for method, answers in right.items():
        each = 100 * (answers - right[lora])
        error = np.hypot(
            each.mean(0).std(ddof=1) / np.sqrt(each.shape[1]), each.mean(1).std(ddof=1) / np.sqrt(len(each))
        )
        expected = "" if method == lora else f"{each.mean():+.1f} ± {error:.1f}"
        assert rows[method].split(" | ")[-1].strip(" |") == expected


def test_rows_are_compared_seed_by_seed(script: Callable[..., ModuleType], tmp_path: Path, finished: Path) -> None:
    """Means, errors over the seeds and differences to LoRA, by numpy from the runs' own files."""
    page = tmp_path / "docs" / "gradient-clipping.md"
    page.parent.mkdir()
    part = f"{finished.name}: seed by seed"
    page.write_text(f"<!-- {part} -->\n<!-- end of {part} -->\n")
    script("seed_by_seed")
    cells = load_cells(finished)
    runs = {run.run: finished / "runs" / run.training / "training" / "metrics.jsonl" for run in load_results(finished)}
    measured = []
    for cell in cells:
        late = [[json.loads(line)["loss"] for line in runs[run].read_text().splitlines()][1:] for run in cell.runs]
        measured.append((100 * np.array(cell.accuracies), np.mean(late, axis=1)))
    lora = next(index for index, cell in enumerate(cells) if cell.family == "lora")
    rows = [row.split(" | ") for row in page.read_text().splitlines() if "±" in row]
    assert len(rows) == len(cells)
    for index, row in enumerate(rows):
        for column, which, form in ((4, 0, ".1f"), (6, 1, ".3f")):
            ours, its = measured[index][which], measured[lora][which]
            assert row[column] == f"{ours.mean():{form}} ± {ours.std(ddof=1) / np.sqrt(2):{form}}"
            away = ours - its
            expected = "" if index == lora else f"{away.mean():+{form}} ± {away.std(ddof=1) / np.sqrt(2):{form}}"
            assert row[column + 1].strip(" |") == expected
        logs = [json.loads(line) for run in cells[index].runs for line in runs[run].read_text().splitlines()]
        norms = np.array([each["grad_norm"] for each in logs])
        assert row[8] == f"{np.median(norms):.2f}"
        assert row[9].strip(" |") == f"{100 * (norms > 1).mean():.0f} %"


def test_a_row_of_runs_taken_over_without_their_logs_has_no_norms(
    script: Callable[..., ModuleType], tmp_path: Path, finished: Path
) -> None:
    """Records carry the losses but not the gradients; the rest of the row, and the other rows, stay as they are."""
    sweep_copy = tmp_path / "copy"
    shutil.copytree(finished, sweep_copy)
    first, *_ = load_cells(finished)
    lost = next(run.training for run in load_results(finished) if run.run == first.runs[0])
    (sweep_copy / "runs" / lost / "training" / "metrics.jsonl").unlink()
    rows = []
    for folder in (finished, sweep_copy):
        page = tmp_path / "docs" / "gradient-clipping.md"
        page.parent.mkdir(exist_ok=True)
        page.write_text(f"<!-- {folder.name}: seed by seed -->\n<!-- end of {folder.name}: seed by seed -->\n")
        script("seed_by_seed", "--sweep", str(folder))
        rows.append([row.split(" | ") for row in page.read_text().splitlines() if "±" in row])
    whole, without = rows
    assert without[1:] == whole[1:]
    assert without[0][:8] == whole[0][:8]
    assert [cell.strip(" |") for cell in without[0][8:]] == ["", ""]
