"""What the bar says while a sweep runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from made_runs import made_run
from trimtab.sweeps import Configuration, Grid, SweepDirectory, SweepRecipe
from trimtab.sweeps.costs import Costs
from trimtab.sweeps.progress import SweepProgress

TASKS = ["listops-small", "listops"]
METHODS = ["post-block", "1-vec"]


def finish(directory: SweepDirectory, run: Configuration, correct: int) -> None:
    """Write the record of a run that had `correct` of 10 right answers."""
    directory.home(run).mkdir(parents=True, exist_ok=True)
    names = {"run": run.hash, "training": run.training_hash, "model": run.model, "task": run.task_name}
    record = made_run(
        label=run.label, rate=run.learning_rate, seed=run.seed, split=run.split, correct=correct, n=10, **names
    )
    record.save(directory.file(run, ".json"))


def test_the_best_so_far_is_of_one_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nine of ten on an easy task are no better than five on a hard one: it is that of the task that is worked on."""
    monkeypatch.setenv("COLUMNS", "200")
    recipe = SweepRecipe(models=["a"], tasks=TASKS, methods=METHODS, learning_rates=[1e-3], seeds=[0], test_examples=4)
    grid, directory = Grid.of(recipe), SweepDirectory(tmp_path / "out")
    directory.open(recipe.to_dict())
    runs = {(cell.task, cell.method): next(cell.runs()) for cell in grid.cells}
    said = []
    for task, method, correct in (
        ("listops-small", "post-block", 9),
        ("listops", "post-block", 3),
        ("listops", "1-vec", 5),
        ("listops-small", "1-vec", 4),
    ):
        with SweepProgress(grid, directory, Costs(), workers=1) as progress:
            finish(directory, runs[task, method], correct)
            progress.refresh()
        said.append(capsys.readouterr().err.partition("  best ")[2].partition(" (test)")[0])
    assert said == [
        "90.0 % post-block, listops-small, a",
        "30.0 % post-block, listops, a",
        "50.0 % 1-vec, listops, a",
        "90.0 % post-block, listops-small, a",
    ]


def test_final_scores_are_not_compared_with_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cell of which only validation is known is not best beside one that has been scored on test."""
    monkeypatch.setenv("COLUMNS", "200")
    rates = [1e-3, 2e-3]
    recipe = SweepRecipe(
        models=["a"],
        tasks=TASKS[:1],
        methods=METHODS,
        learning_rates=rates,
        seeds=[0],
        validation_examples=4,
        test_examples=4,
    )
    grid, directory = Grid.of(recipe), SweepDirectory(tmp_path / "out")
    directory.open(recipe.to_dict())
    first, second = grid.cells
    for cell, correct in ((first, 6), (second, 9)):
        for run in cell.trials:
            finish(directory, run, correct)
    finish(directory, first.finals[1e-3][0], 5)
    with SweepProgress(grid, directory, Costs(), workers=1):
        pass
    assert "best 50.0 % post-block, listops-small, a (test)" in capsys.readouterr().err
