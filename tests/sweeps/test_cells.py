"""cells.jsonl: the chosen rate and every seed's value, also after the recipe has grown."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas
import pytest
from rich.console import Console

from made_runs import made_run
from sweeps.small_sweep import small_recipe
from trimtab.results import FailedRun
from trimtab.sweeps import Configuration, Grid, SweepDirectory, SweepRecipe, load_cells, load_results, sweep
from trimtab.sweeps.cells import over_seeds, write_cells
from trimtab.sweeps.directory import load_cell_lines

RATES = [1e-3, 2e-3]


def grid(**changes: Any) -> Grid:
    """One cell: two rates, three seeds."""
    given: dict[str, Any] = {"models": ["a"], "tasks": ["listops-small"], "methods": ["post-block"]}
    return Grid.of(SweepRecipe(**{**given, "learning_rates": RATES, "seeds": [0, 1, 2], **changes}))


def finish(directory: SweepDirectory, run: Configuration, correct: int) -> None:
    """Write the record of a run that had `correct` of 10 right answers."""
    directory.home(run).mkdir(parents=True, exist_ok=True)
    made_run(
        run=run.hash,
        training=run.training_hash,
        model=run.model,
        task=run.task_name,
        label=run.label,
        rate=run.learning_rate,
        seed=run.seed,
        split=run.split,
        correct=correct,
        n=10,
    ).save(directory.file(run, ".json"))


def fail(directory: SweepDirectory, run: Configuration, error: str) -> None:
    """Write the record of a run that ended with an error."""
    directory.home(run).mkdir(parents=True, exist_ok=True)
    given = made_run(run=run.hash, training=run.training_hash, rate=run.learning_rate, seed=run.seed, split=run.split)
    content = {name: getattr(given, name) for name in FailedRun.__dataclass_fields__ if hasattr(given, name)}
    FailedRun(**{**content, "error": error, "message": "said", "traceback_file": "f.txt"}).save(
        directory.file(run, ".failed.json")
    )


@pytest.fixture
def directory(tmp_path: Path) -> SweepDirectory:
    """An empty sweep."""
    found = SweepDirectory(tmp_path / "out")
    found.open({})
    return found


def test_a_finished_sweep_has_the_numbers_that_pandas_finds_in_its_runs(folder: Path, tmp_path: Path) -> None:
    """Chosen rate, mean, standard deviation and every seed; the file is a table in one line."""
    sweep(small_recipe(folder), tmp_path / "out", probe=False, console=Console(file=io.StringIO()))
    cells = pandas.read_json(tmp_path / "out" / "cells.jsonl", lines=True)
    runs = pandas.read_json(tmp_path / "out" / "results.jsonl", lines=True)
    assert list(cells.method) == ["post-block", "rank 1"]
    for cell in cells.itertuples():
        own = runs[runs.method == cell.method]
        trials, tested = own[own.split == "validation"], own[own.split == "test"].sort_values("seed")
        best = trials.sort_values(["accuracy", "learning_rate"], ascending=[False, True]).iloc[0]
        assert cell.learning_rate == best.learning_rate == tested.learning_rate.unique().item()
        assert cell.accuracies == list(tested.accuracy)
        assert cell.finished_seeds == cell.seeds == [0, 1]
        assert cell.accuracy == pytest.approx(tested.accuracy.mean())
        assert cell.standard_deviation == pytest.approx(tested.accuracy.std())
        assert cell.runs == list(tested.run)
        assert {rate: right for rate, right, _ in cell.validation} == dict(
            zip(trials.learning_rate, trials.correct, strict=True)
        )
        assert cell.trainable_parameters == own.trainable_parameters.unique().item()
        assert cell.missing == []


def test_a_grown_recipe_names_the_rate_that_counts(directory: SweepDirectory) -> None:
    """A new rate is better on validation: both have test lines, one of them is the cell's."""
    first = grid()
    (cell,) = first.cells
    for run, right in zip(cell.trials, (3, 6), strict=True):
        finish(directory, run, right)
    for run in cell.finals[2e-3]:
        finish(directory, run, 5)
    write_cells(first, directory)
    (record,) = load_cells(directory.path)
    assert (record.learning_rate, record.accuracy, record.missing) == (2e-3, 0.5, [])

    grown = grid(learning_rates=[*RATES, 4e-3])
    (cell,) = grown.cells
    finish(directory, cell.trials[2], 9)
    write_cells(grown, directory)
    (record,) = load_cells(directory.path)
    assert (record.learning_rate, record.accuracy, record.accuracies) == (4e-3, None, [])
    assert [(run["learning_rate"], run["seed"], run["split"]) for run in record.missing] == [
        (4e-3, seed, "test") for seed in (0, 1, 2)
    ]
    for run, right in zip(cell.finals[4e-3], (8, 6, 7), strict=True):
        finish(directory, run, right)
    directory.assemble()
    write_cells(grown, directory)
    (record,) = load_cells(directory.path)
    assert (record.learning_rate, record.accuracies, record.n) == (4e-3, [0.8, 0.6, 0.7], 10)
    assert record.standard_deviation == pytest.approx(0.1)
    assert record.standard_error == pytest.approx((0.7 * 0.3 / 10) ** 0.5)
    assert {each.learning_rate for each in load_results(directory.path) if each.split == "test"} == {2e-3, 4e-3}


def test_an_open_choice_says_what_is_missing(directory: SweepDirectory) -> None:
    """The trial that has not run, and the seeds at a rate that nobody knows yet."""
    one = grid()
    finish(directory, one.cells[0].trials[0], 3)
    write_cells(one, directory)
    (record,) = load_cells(directory.path)
    assert record.learning_rate is None
    assert record.validation == [[1e-3, 3, 10]]
    assert [(run["learning_rate"], run["seed"], run["split"], run["error"]) for run in record.missing] == [
        (2e-3, 0, "validation", None),
        *((None, seed, "test", None) for seed in (0, 1, 2)),
    ]


def test_a_rate_that_diverged_is_a_result_and_an_accident_is_missing(directory: SweepDirectory) -> None:
    """The first is listed as such and lacks nothing; the second has its error."""
    one = grid()
    first, second = one.cells[0].trials
    finish(directory, first, 3)
    fail(directory, second, "FloatingPointError")
    write_cells(one, directory)
    (record,) = load_cells(directory.path)
    assert (record.learning_rate, record.diverged) == (1e-3, [2e-3])
    assert {run["split"] for run in record.missing} == {"test"}
    fail(directory, second, "OutOfMemoryError")
    write_cells(one, directory)
    (record,) = load_cells(directory.path)
    assert (record.learning_rate, record.diverged) == (None, [])
    assert record.missing[0]["error"] == "OutOfMemoryError: said"


def test_cells_of_other_recipes_stay(directory: SweepDirectory) -> None:
    """Another method, the same one in a study on validation, and one with fewer seeds have lines of their own.

    The last used to take the place of the first: its third seed was then in no table any more.
    """
    write_cells(grid(), directory)
    write_cells(grid(methods=["1-vec"]), directory)
    write_cells(grid(stage="validation"), directory)
    write_cells(grid(seeds=[0, 1]), directory)
    records = load_cell_lines(directory.path)
    assert [(each.method, each.split, len(each.seeds)) for each in records] == [
        ("post-block", "test", 3),
        ("1-vec", "test", 3),
        ("post-block", "validation", 3),
        ("post-block", "test", 2),
    ]


@pytest.mark.parametrize("larger_last", [False, True])
def test_of_recipes_with_other_seeds_and_rates_no_finished_seed_is_lost(
    directory: SweepDirectory, larger_last: bool
) -> None:
    """Three seeds of two rates, and two seeds of which one rate is another: three count, whoever writes last."""
    three, two = grid(), grid(seeds=[0, 1], learning_rates=[2e-3, 4e-3])
    for run, right in zip((*three.cells[0].trials, two.cells[0].trials[1]), (3, 6, 5), strict=True):
        finish(directory, run, right)
    for run, right in zip(three.cells[0].finals[2e-3], (5, 7, 9), strict=True):
        finish(directory, run, right)
    for each in (two, three) if larger_last else (three, two):
        write_cells(each, directory)
        write_cells(each, directory)
    assert sorted(line.accuracies for line in load_cell_lines(directory.path)) == [[0.5, 0.7], [0.5, 0.7, 0.9]]
    (cell,) = load_cells(directory.path)
    assert (cell.finished_seeds, cell.accuracies) == ([0, 1, 2], [0.5, 0.7, 0.9])


def test_the_line_with_more_finished_seeds_counts_and_of_equal_ones_the_whole(directory: SweepDirectory) -> None:
    """A recipe that wants more seeds has finished fewer, because it chose another rate; then as many; then more."""
    many, few = grid(learning_rates=[*RATES, 4e-3]), grid(seeds=[0, 1])
    for run, right in zip(many.cells[0].trials, (3, 6, 8), strict=True):
        finish(directory, run, right)
    for run in few.cells[0].finals[2e-3]:
        finish(directory, run, 5)
    write_cells(many, directory)
    write_cells(few, directory)
    for run, counting in zip(many.cells[0].finals[4e-3], (2e-3, 2e-3, 4e-3), strict=True):
        finish(directory, run, 7)
        write_cells(many, directory)
        write_cells(few, directory)
        assert [cell.learning_rate for cell in load_cells(directory.path)] == [counting]


def test_recipes_with_other_settings_keep_a_line_each(directory: SweepDirectory) -> None:
    """400 and 800 examples, and another number of test examples; the same recipe again changes its own line."""
    for changes in ({"training": {"examples": 400}}, {"training": {"examples": 800}}, {"test_examples": 9}):
        write_cells(grid(**changes), directory)
    write_cells(grid(training={"examples": 400}, seeds=[0, 1, 2, 3]), directory)
    found = [(each.settings or {}, len(each.seeds)) for each in load_cells(directory.path)]
    assert [(settings["training"]["examples"], settings["scored"], count) for settings, count in found] == [
        (800, None, 3),
        (None, 9, 3),
        (400, None, 4),
    ]


def test_a_line_of_an_earlier_version_makes_way(directory: SweepDirectory) -> None:
    """It does not tell its settings; beside the new one it would be the same cell twice."""
    write_cells(grid(), directory)
    line = json.loads(directory.cells_file.read_text())
    del line["settings"]
    directory.cells_file.write_text(json.dumps(line) + "\n")
    write_cells(grid(), directory)
    assert len(load_cells(directory.path)) == 1


def test_seeds_on_other_examples_are_not_averaged() -> None:
    """A mean over runs that answered different numbers of examples has no n."""
    with pytest.raises(ValueError, match="different numbers of examples"):
        over_seeds([made_run(n=100), made_run(seed=1, n=200)])


def test_a_line_of_another_schema_is_refused(directory: SweepDirectory) -> None:
    """As with results.jsonl: it is not read wrongly."""
    write_cells(grid(), directory)
    line = json.loads(directory.cells_file.read_text())
    directory.cells_file.write_text(json.dumps({**line, "schema_version": 99}) + "\n")
    with pytest.raises(ValueError, match="schema version 99"):
        load_cells(directory.path)
