"""From a recipe to results: plan, run, resume."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from trimtab.results import RunRecord
from trimtab.sweeps.cells import write_cells
from trimtab.sweeps.costs import Costs
from trimtab.sweeps.directory import SweepDirectory
from trimtab.sweeps.executors import ExecutorOptions, get_executor
from trimtab.sweeps.grid import Grid
from trimtab.sweeps.plan import check_data, plan_table, trainable_parameters
from trimtab.sweeps.progress import SweepProgress
from trimtab.sweeps.recipe import SweepRecipe
from trimtab.sweeps.selection import DIVERGED, finished_finals
from trimtab.sweeps.summary import summary_table
from trimtab.sweeps.taking_over import finished_elsewhere
from trimtab.sweeps.taking_over import take_over as take_over_runs
from trimtab.sweeps.tracking import Tracker


class UnfinishedSweepError(RuntimeError):
    """Runs have failed, and cells lack results for it."""


def sweep(
    recipe: SweepRecipe,
    out: str | Path,
    *,
    options: ExecutorOptions | None = None,
    plan_only: bool = False,
    probe: bool = True,
    retry_failed: bool = False,
    track: str | None = None,
    take_over: Sequence[str | Path] = (),
    console: Console | None = None,
) -> SweepDirectory:
    """Print the plan of `recipe`, run what is missing in `out`, and print what came of it.

    Started again, it goes on: what is finished is not run again. Several may work on one directory at once.

    Args:
        recipe: the grid.
        out: the sweep's directory.
        options: where the runs are executed; None: in this process.
        plan_only: print the plan and stop.
        probe: run a few steps of each kind of run, to tell how long it takes.
        retry_failed: run again what has failed, but for trainings that diverged: they would again.
        track: a trackio project, in which finished runs are logged.
        take_over: sweeps, or files of their results, whose finished runs of this grid are not run again.
        console: where to print; None: the terminal.

    Raises:
        ValueError: a mistake in the recipe or the options.
        FileExistsError: `out` holds something else.
        FileNotFoundError: there is nothing to take over where `take_over` says.
        OSError: the data of a task is not there, or workers died.
        ModuleNotFoundError: a package that the options need is not installed.
        UnfinishedSweepError: runs have failed and cells lack results for it.
    """
    console = console or Console(highlight=False)
    options = options or ExecutorOptions()
    grid, executor, directory = Grid.of(recipe), get_executor(options), SweepDirectory(out)
    directory.check()
    elsewhere = finished_elsewhere(grid, take_over)
    parameters = trainable_parameters(grid)
    with _tasks_say(logging.WARNING):
        check_data(grid)
    if plan_only:
        directory.suppose(record for _, record, _ in elsewhere)
    else:
        directory.open(recipe.to_dict())
        taken = take_over_runs(elsewhere, directory)
        if take_over:
            console.print(f"{taken} finished runs taken over")
    tracker = None if track is None or plan_only else Tracker(track, directory)
    if retry_failed and not plan_only:
        _forget_failures(grid, directory)

    with _tasks_say(logging.ERROR):  # they are loaded once a run
        costs = Costs()
        theirs = {record.run: record for _, record, _ in elsewhere}
        for record in _finished(grid, directory):
            if record != theirs.get(record.run):  # another machine's times say nothing of this one's
                costs.learn(record)
        if probe:
            executor.probe(grid, directory, costs)
        console.print(plan_table(grid, directory, parameters, costs, options.workers))
        if plan_only:
            return directory
        write_cells(grid, directory)  # what is missing can be told from the beginning
        with SweepProgress(grid, directory, costs, options.workers, tracker) as progress:
            executor.run(grid, directory, progress)
    directory.assemble()
    write_cells(grid, directory)
    console.print(summary_table(grid, directory))
    console.print(f"results in {directory.results_file}", markup=False, soft_wrap=True)
    _require_complete(grid, directory)
    return directory


def _finished(grid: Grid, directory: SweepDirectory) -> list[RunRecord]:
    """The records of the grid that are there already."""
    runs = {run.hash: run for cell in grid.cells for run in cell.runs()}.values()
    return [record for run in runs if (record := directory.record(run)) is not None]


@contextmanager
def _tasks_say(level: int) -> Iterator[None]:
    """Within `with`, tasks say what is of this level or above it."""
    logger = logging.getLogger("trimtab.tasks")
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


def _forget_failures(grid: Grid, directory: SweepDirectory) -> None:
    """Let what has failed by accident be run again. That a training diverged is a result about its rate."""
    for run in (run for cell in grid.cells for run in cell.runs()):
        failure = directory.failure(run)
        if failure is not None and failure.error != DIVERGED:
            with directory.claimed(run) as mine:
                if mine:
                    directory.forget_failure(run)


def _require_complete(grid: Grid, directory: SweepDirectory) -> None:
    """Raise unless every cell has its results; a rate that diverged is a result."""
    lacking = [cell for cell in grid.cells if len(finished_finals(cell, directory)) < cell.seeds]
    if lacking:
        failures = [f for cell in lacking for run in cell.runs() if (f := directory.failure(run)) is not None]
        accidents = [failure for failure in failures if failure.error != DIVERGED]
        first = next(iter(accidents or failures), None)
        said = f" The first: {first.error}: {first.message} ({directory.path / first.traceback_file})." if first else ""
        again = "--retry_failed runs them again."
        if failures and not accidents:
            again = "All that failed diverged, and would again: other rates are needed."
        raise UnfinishedSweepError(
            f"{len(lacking)} of {len(grid.cells)} cells lack results, because runs failed.{said} {again}"
        )
