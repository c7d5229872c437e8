"""What a report is made of: one sweep or several, whole or not, with or without cells.jsonl."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from made_runs import made_run
from reports.made_outcomes import outcomes, seeds
from trimtab.reports import Outcomes
from trimtab.reports.cells_of_runs import cells_of_runs
from trimtab.reports.sections import contents
from trimtab.results import CellRecord, RunRecord
from trimtab.sweeps import load_results


def save(folder: Path, records: list[RunRecord], cells: list[CellRecord] | None = None) -> Path:
    """A directory with results.jsonl, and with cells.jsonl if `cells` are given."""
    folder.mkdir()
    (folder / "results.jsonl").write_text("".join(json.dumps(each.to_dict()) + "\n" for each in records))
    if cells is not None:
        (folder / "cells.jsonl").write_text("".join(json.dumps(each.to_dict()) + "\n" for each in cells))
    return folder


def trials(**right: int) -> list[RunRecord]:
    """Validation at 0.001, 0.002, ... with these right answers."""
    return [made_run(rate=1e-3 * (i + 1), split="validation", correct=each) for i, each in enumerate(right.values())]


def test_runs_alone_tell_the_latest_choice(tmp_path: Path) -> None:
    """Two rates have been tested, one after a recipe had grown: the later one counts, with its own seeds only."""
    early = seeds(70, 72, rate=1e-3)
    late = seeds(60, 64, rate=2e-3, finished="2026-02-01T00:00:00.000000+00:00")
    found = Outcomes.read([save(tmp_path / "a", [*trials(a=50, b=55), *early, *late])])
    (cell,) = found.cells
    assert (cell.learning_rate, cell.accuracies, cell.finished_seeds) == (2e-3, [0.6, 0.64], [0, 1])
    assert cell.validation == [[1e-3, 50, 100], [2e-3, 55, 100]]
    assert found.from_runs == ("a",)


def test_a_study_on_validation_chooses_as_a_sweep_does() -> None:
    """The most right answers; of equal rates the smaller one."""
    (cell,) = outcomes(*trials(a=50, b=55, c=55)).cells
    assert (cell.learning_rate, cell.split, cell.accuracy) == (2e-3, "validation", 0.55)


def test_results_alone_choose_the_rates_that_the_sweep_of_the_study_chose() -> None:
    """Its committed runs, with two choosing seeds and rates of an earlier recipe, give its committed cells."""
    committed = Path(__file__).parents[2] / "benchmarks" / "results"
    cells = {cell.method: cell for cell in cells_of_runs(load_results(committed / "study-runs.jsonl"))}
    lines = map(json.loads, (committed / "study.jsonl").read_text().splitlines())
    for line in lines:
        cell = cells.pop(line["method"])
        assert (cell.learning_rate, cell.accuracies) == (line["learning_rate"], line["accuracies"]), cell.method
        assert all(scored in cell.validation for scored in line["validation"]), cell.method
    assert cells == {}


def test_a_study_on_validation_compares_rates_over_the_seeds_that_choose() -> None:
    """A sweep runs further seeds at the chosen rate only: 60 against 55 on the first seed, whatever the others do."""
    records = [*trials(a=60, b=55), *(made_run(seed=seed, split="validation", correct=40) for seed in (1, 2))]
    (cell,) = outcomes(*records).cells
    assert (cell.learning_rate, cell.accuracies) == (1e-3, [0.6, 0.4, 0.4])
    assert cell.validation == [[1e-3, 60, 100], [2e-3, 55, 100]]


def test_shares_of_other_numbers_of_examples_are_not_pooled() -> None:
    """A recipe was changed to more validation examples: what was tried on fewer does not choose."""
    small = [made_run(rate=rate, split="validation", correct=9, n=10, run=f"{rate}/small") for rate in (1e-3, 2e-3)]
    late = {"finished": "2026-03-01T00:00:00.000000+00:00"}
    new = [made_run(rate=r, split="validation", correct=c, **late) for r, c in ((1e-3, 50), (2e-3, 55))]
    (cell,) = outcomes(*small, *new, *seeds(50, rate=2e-3)).cells
    assert cell.validation == [[1e-3, 50, 100], [2e-3, 55, 100]]


def changed(record: RunRecord, **training: Any) -> RunRecord:
    """The run with other settings of training."""
    configuration = {**record.configuration, "training": {**record.configuration["training"], **training}}
    words = "/".join(f"{key}={value}" for key, value in training.items())
    return replace(record, run=f"{record.run}/{words}", configuration=configuration)


def test_runs_of_one_label_and_other_settings_are_two_cells(tmp_path: Path) -> None:
    """400 and 800 examples: both are shown, with the number in their labels, as cells and in every section."""
    records = [*seeds(10, 20), *(changed(run, examples=800) for run in seeds(90))]
    found = Outcomes.read([save(tmp_path / "a", records)])
    assert {cell.method: cell.accuracies for cell in found.cells} == {
        "post-block [examples=400]": [0.1, 0.2],
        "post-block [examples=800]": [0.9],
    }


def test_what_tells_cells_apart_is_said_in_few_words() -> None:
    """The examples if they do, else whatever differs; of a path the last word; one cell alone has its plain label."""
    one, two = seeds(50), seeds(60)
    both = outcomes(*one, *(changed(run, examples=None, epochs=3) for run in two))
    assert both.methods == ["post-block [examples=400]", "post-block [examples=all]"]
    paths = outcomes(*(changed(run, dtype=f"/home/me/{name}") for run in two for name in ("a", "b")))
    assert paths.methods == ["post-block [dtype=a]", "post-block [dtype=b]"]
    assert outcomes(*(changed(run, examples=800) for run in two)).methods == ["post-block"]


def test_differences_are_to_full_fine_tuning_with_the_same_settings() -> None:
    """With 800 examples 60 less 70, and not less the 50 of 400 examples."""
    few = [*seeds(50, method="sft"), *seeds(45)]
    many = [changed(run, examples=800) for run in (*seeds(70, method="sft"), *seeds(60))]
    found = outcomes(*few, *many)
    deltas = {cell.method: found.delta(cell) for cell in found.cells if cell.family != "full"}
    assert deltas == {
        "post-block [examples=400]": pytest.approx(-0.05),
        "post-block [examples=800]": pytest.approx(-0.1),
    }


def test_shared_trials_are_found_under_another_label() -> None:
    """Two recipes in one directory share a training; the record has the label of the first."""
    other = [made_run(rate=rate, split="validation", label="block", correct=40) for rate in (1e-3, 2e-3)]
    found = outcomes(*other, *seeds(50, rate=2e-3))
    (cell,) = found.cells
    assert (cell.method, len(cell.validation), len(cell.trials)) == ("post-block", 2, 2)


def test_several_directories_are_one_report(tmp_path: Path) -> None:
    """Cells of both; a cell that both have counts once, from where more of it is."""
    full = seeds(50, 52, 54)
    one = outcomes(*full[:1], *seeds(80, method="sft"))
    two = outcomes(*full, *seeds(60, method="lora"))
    paths = [
        save(tmp_path / name, list(each.runs.values()), list(each.cells)) for name, each in (("a", one), ("b", two))
    ]
    found = Outcomes.read(paths)
    assert {cell.method: cell.accuracies for cell in found.cells} == {
        "post-block": [0.5, 0.52, 0.54],
        "sft": [0.8],
        "lora": [0.6],
    }
    assert found.sources == ("a", "b")
    assert found.from_runs == ()


def test_of_recipes_in_one_directory_the_line_with_most_seeds_is_shown_and_the_other_named(tmp_path: Path) -> None:
    """Three seeds count, in whichever order the lines stand; the two of the other recipe are said to be left out."""
    three, two = (outcomes(*seeds(*right)) for right in ((50, 52, 60), (50, 52)))
    (less,) = two.cells
    shared = [*three.cells, replace(less, learning_rates=[1e-3, 2e-3])]
    for name, cells in (("a", shared), ("b", shared[::-1])):
        found = Outcomes.read([save(tmp_path / name, list(three.runs.values()), cells)])
        (cell,) = found.cells
        assert (cell.method, cell.accuracies) == ("post-block", [0.5, 0.52, 0.6])
        (said,) = [part.text for part in contents.parts(found) if "share a directory" in getattr(part, "text", "")]
        assert said.endswith("not these: post-block on boolq (2 of 2 seeds; rates 0.001, 0.002).")


def test_two_directories_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    """The same model, task and method with other runs: which would the report show?"""
    first = save(tmp_path / "a", seeds(50))
    second = save(tmp_path / "b", [made_run(seed=4, correct=60)])
    with pytest.raises(ValueError, match=r"post-block on boolq .* is in .*a and in .*b"):
        Outcomes.read([first, second])


def test_test_scores_and_a_study_on_validation_are_not_put_together(tmp_path: Path) -> None:
    """The report is about test; what has been scored on validation only is named and left out."""
    tested = outcomes(*seeds(50))
    study = outcomes(*(made_run("1-vec", rate=rate, split="validation", correct=70) for rate in (1e-3, 2e-3)))
    same = outcomes(*trials(a=50, b=55))
    cells = [*tested.cells, *study.cells, *same.cells]
    runs = [*tested.runs.values(), *study.runs.values(), *same.runs.values()]
    found = Outcomes.read([save(tmp_path / "a", runs, cells)])
    assert [cell.method for cell in found.cells] == ["post-block"]
    assert [cell.method for cell in found.left_out] == ["1-vec"]


@pytest.mark.parametrize(
    ("paths", "error"), [([], "needs the directory"), (["nothing"], "no results.jsonl"), (["empty"], "no result in")]
)
def test_no_results_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths: Any, error: str) -> None:
    """It says what is wrong with what was given."""
    monkeypatch.chdir(tmp_path)
    save(Path("empty"), [])
    with pytest.raises((ValueError, FileNotFoundError), match=error):
        Outcomes.read(paths)


def test_a_file_of_results_is_enough(tmp_path: Path) -> None:
    """Wherever it lies, and whatever it is called."""
    moved = (save(tmp_path / "a", seeds(50)) / "results.jsonl").rename(tmp_path / "mine.jsonl")
    assert [cell.accuracy for cell in Outcomes.read([moved]).cells] == [0.5]


def test_names_are_short_where_they_are_unique() -> None:
    """A hub's id or a path by its last word."""
    found = outcomes(*seeds(50, model="a/m"), *seeds(50, model="b/m", run="x"), *seeds(50, model="a/k", run="y"))
    assert [found.short(model) for model in found.models] == ["a/m", "b/m", "k"]
