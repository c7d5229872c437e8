"""Finished runs of another sweep: what is taken over, what is not, and what is run for all that."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sweeps.small_sweep import Ran, numbers, quietly, small_recipe
from trimtab.results import FailedRun
from trimtab.sweeps import Grid, SweepDirectory, load_failures, load_results


@pytest.fixture(scope="module")
def elsewhere(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small sweep with one seed, run in another directory."""
    out = tmp_path_factory.mktemp("elsewhere") / "out"
    quietly(small_recipe(folder, seeds=[0]), out)
    return out


def test_a_sweep_goes_on_from_nothing_but_the_results_of_another(
    folder: Path, elsewhere: Path, tmp_path: Path, ran: Ran
) -> None:
    """With a seed more than there, only that seed is run; the records are the other sweep's, number by number."""
    results = tmp_path / "known.jsonl"
    results.write_text((elsewhere / "results.jsonl").read_text())
    printed = quietly(small_recipe(folder), tmp_path / "out", take_over=[results])
    assert "6 finished runs taken over" in printed
    assert [(seed, split) for _, _, seed, split in ran] == [(1, "test"), (1, "test")]
    found, known = numbers(load_results(tmp_path / "out")), numbers(load_results(elsewhere))
    assert known.items() <= found.items()
    assert len(found) == len(known) + 2
    # Once more, with nothing to take over and nothing to run.
    assert "0 finished runs taken over" in quietly(small_recipe(folder), tmp_path / "out", take_over=[results])
    assert len(ran) == 2


def test_the_plan_counts_what_would_be_taken_over(folder: Path, elsewhere: Path, tmp_path: Path) -> None:
    """Six of the eight runs are done elsewhere; a plan says so and writes nothing."""
    out = tmp_path / "out"
    printed = quietly(small_recipe(folder), out, plan_only=True, take_over=[elsewhere])
    assert "6 of 8 runs done" in printed
    assert "to go with" not in printed, "times of another machine"
    assert "0 of 8 runs done" in quietly(small_recipe(folder), out, plan_only=True)
    assert not out.exists()


def test_answers_come_along_where_they_are(folder: Path, elsewhere: Path, tmp_path: Path) -> None:
    """From a directory every answer is there afterwards; `right` says the same, character by character."""
    quietly(small_recipe(folder, seeds=[0]), tmp_path / "out", take_over=[elsewhere])
    records = load_results(tmp_path / "out")
    assert records
    for record in records:
        rows = [json.loads(row) for row in (tmp_path / "out" / record.examples_file).read_text().splitlines()]
        assert record.right == "".join("1" if row["correct"] else "0" for row in rows)
        assert record.right.count("1") == record.correct


def test_only_runs_of_the_grid_are_taken_over(folder: Path, elsewhere: Path, tmp_path: Path, ran: Ran) -> None:
    """Another length of training is another run."""
    recipe = small_recipe(folder, seeds=[0], methods=["post-block"], training={"batch_size": 4, "dtype": "float32"})
    assert "0 finished runs taken over" in quietly(recipe, tmp_path / "out", take_over=[elsewhere])
    assert len(ran) == 3


def test_what_has_failed_here_and_finished_there_has_finished(folder: Path, elsewhere: Path, tmp_path: Path) -> None:
    """The failure makes way for the record."""
    recipe = small_recipe(folder, seeds=[0], methods=["post-block"])
    directory = SweepDirectory(tmp_path / "out")
    directory.open(recipe.to_dict())
    run = Grid.of(recipe).cells[0].trials[0]
    known = next(record for record in load_results(elsewhere) if record.run == run.hash).to_dict()
    names = ("run", "training", "model", "task", "method", "learning_rate", "seed", "split", "finished")
    failed = FailedRun(
        **{name: known[name] for name in names},
        error="OSError",
        message="no disk",
        traceback_file="",
        configuration={},
        environment=load_results(elsewhere)[0].environment,
    )
    directory.home(run).mkdir()
    failed.save(directory.file(run, ".failed.json"))
    quietly(recipe, tmp_path / "out", take_over=[elsewhere])
    assert load_failures(tmp_path / "out") == []


def test_a_source_that_is_not_there_is_an_error_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    """Named, and no directory is made."""
    with pytest.raises(FileNotFoundError, match="nowhere"):
        quietly(small_recipe(folder), tmp_path / "out", take_over=[tmp_path / "nowhere"])
    assert not (tmp_path / "out").exists()
