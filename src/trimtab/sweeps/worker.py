"""A worker: takes runs of the grid one by one until none is left. One process may be the only one, or one of many.

Workers need not know of each other. Each takes the first run that can be started and that nobody has claimed; when all
of them are claimed it waits, because what comes of them may make further runs possible, or their process may die.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable

from trimtab.files import write_text
from trimtab.models import resolve_device
from trimtab.results import Environment, FailedRun
from trimtab.sweeps.cells import write_cells
from trimtab.sweeps.configuration import Configuration
from trimtab.sweeps.directory import SweepDirectory, now
from trimtab.sweeps.grid import Cell, Grid
from trimtab.sweeps.groups import Group, claimed_group, forget_groups, give_up, train_group
from trimtab.sweeps.run import BaseModels, run_one
from trimtab.sweeps.selection import open_runs, settled, weights_to_keep

Announce = Callable[[Configuration | Group | None], None]
"""Called with the run, or the runs trained together, that begin, and with None whenever one has ended."""


def work(grid: Grid, directory: SweepDirectory, bases: BaseModels, announce: Announce, poll: float) -> None:
    """Run what `grid` needs and `directory` lacks, until everything has finished or failed.

    Args:
        grid: the runs.
        directory: where records are and go.
        bases: the models of this process.
        announce: told of each run that begins or ends here.
        poll: seconds between two looks when others have claimed all that is left.
    """
    while waiting := _waiting(grid, directory):
        runs = [run for _, run in waiting]
        if not any(_taken(cell, run, runs, grid, directory, bases, announce) for cell, run in waiting):
            time.sleep(poll)
    forget_groups(grid, directory)


def _waiting(grid: Grid, directory: SweepDirectory) -> list[tuple[Cell, Configuration]]:
    """The runs that can be started, in the grid's order.

    Where runs are trained together those that are trained come first: what their scores make possible can then join a
    group.
    """
    waiting = [(cell, run) for cell in grid.cells for run in open_runs(cell, directory)]
    if grid.recipe.together > 1:
        waiting.sort(key=lambda each: not directory.training(each[1]).finished)
    return waiting


def _taken(
    cell: Cell,
    run: Configuration,
    waiting: list[Configuration],
    grid: Grid,
    directory: SweepDirectory,
    bases: BaseModels,
    announce: Announce,
) -> bool:
    """Whether this worker could claim the run, and so has done what there was to do for it."""
    with claimed_group(run, waiting, grid, directory) as group:
        if group is None:
            return False
        if not settled(run, directory):  # between the look and the claim
            if len(group.members) > 1:
                _train(group, directory, bases, announce)
            else:
                _run(run, directory, bases, announce)
    _remove_weights(cell, grid, directory)
    directory.assemble()
    write_cells(grid, directory)
    announce(None)
    return True


def _run(run: Configuration, directory: SweepDirectory, bases: BaseModels, announce: Announce) -> None:
    """Run a run, or record that it failed."""
    announce(run)
    try:
        run_one(run, directory, bases)
    except Exception as error:
        bases.drop()
        write_failure(run, directory, error, traceback.format_exc(), _where(bases))


def _train(group: Group, directory: SweepDirectory, bases: BaseModels, announce: Announce) -> None:
    """Train a group, and record which of its runs diverged; scored they are one by one."""
    announce(group)
    try:
        errors = train_group(group, directory, bases)
    except Exception as error:
        bases.drop()
        give_up(group, directory, error)
        return
    for run, diverged in errors:
        if not settled(run, directory):
            write_failure(run, directory, diverged, "".join(traceback.format_exception(diverged)), _where(bases))


def _where(bases: BaseModels) -> str:
    """The device of this process's models; not "auto"."""
    return str(resolve_device(bases.device))


def write_failure(run: Configuration, directory: SweepDirectory, error: Exception, trace: str, device: str) -> None:
    """Record that `run` ended with `error`; the traceback goes into a file of its own, and checkpoints are deleted.

    Where a loss is not finite, or a checkpoint is what is wrong, going on from one would fail again.
    """
    trace_file = directory.file(run, ".failed.txt")
    write_text(trace_file, trace)
    FailedRun(
        run=run.hash,
        training=run.training_hash,
        model=run.model,
        task=run.task_name,
        method=run.label,
        learning_rate=run.learning_rate,
        seed=run.seed,
        split=run.split,
        error=type(error).__name__,
        message=str(error),
        traceback_file=trace_file.relative_to(directory.path).as_posix(),
        finished=now(),
        configuration=run.to_dict(),
        environment=Environment.collect(device),
    ).save(directory.file(run, ".failed.json"))
    directory.remove_checkpoints(run)


def _remove_weights(cell: Cell, grid: Grid, directory: SweepDirectory) -> None:
    """Delete the weights that are not to be kept and that no run to come reads."""
    keep = grid.recipe.keep
    if keep == "all" or (keep == "adapters" and cell.family != "full"):
        return
    needed = weights_to_keep(cell, directory)
    for run in cell.runs():
        finished = directory.record(run) is not None
        if finished and run.training_hash not in needed and directory.training(run).weights.is_dir():
            with directory.claimed(run) as mine:
                if mine:
                    directory.remove_weights(run)
