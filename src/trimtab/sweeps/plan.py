"""The plan of a sweep: what will be run, how many parameters that trains, how long it takes, and what is done."""

from __future__ import annotations

from itertools import groupby

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from trimtab.methods import parameter_count
from trimtab.models import skeleton
from trimtab.sweeps.costs import Costs, remaining_runs
from trimtab.sweeps.directory import SweepDirectory
from trimtab.sweeps.grid import Cell, Grid
from trimtab.sweeps.selection import expected_runs
from trimtab.tasks.jsonl import JsonlTask


def check_data(grid: Grid) -> None:
    """Read one example of every split that the grid needs.

    Raises:
        ValueError: a split without examples.
        OSError: the data is not there.
    """
    seen: set[tuple[str, str]] = set()
    for run in (run for cell in grid.cells for run in cell.runs()):
        for split in ("train", run.split):
            if (run.task_name, split) not in seen:
                seen.add((run.task_name, split))
                if split == "test" and isinstance(run.task, JsonlTask) and run.task.test is None:
                    raise ValueError(
                        f"The task {run.task_name!r} has no test examples of its own: give it the option `test`, "
                        "a file, or choose stage: validation."
                    )
                run.task.load(split, limit=1, seed=run.training.data_seed)


def trainable_parameters(grid: Grid) -> dict[tuple[str, str], tuple[int, int]]:
    """What each (model, method) trains, and what the model has; counted without weights.

    Raises:
        ValueError: there is no such model, or a method does not fit it.
    """
    counts = {}
    for model in dict.fromkeys(cell.model for cell in grid.cells):
        base = skeleton(model)
        for cell in grid.cells:
            if cell.model == model and (model, cell.method) not in counts:
                method = next(cell.runs()).method
                counts[model, cell.method] = (parameter_count(base, method), base.num_parameters())
    return counts


def plan_table(
    grid: Grid,
    directory: SweepDirectory,
    parameters: dict[tuple[str, str], tuple[int, int]],
    costs: Costs,
    workers: int,
) -> Group:
    """A row for each cell, under its model and task, and the sums."""
    tables = []
    seconds, unknown, done, failed, size = 0.0, 0, 0, 0, 0
    for place, cells in by_place(grid):
        table = place_table(place, "parameters", "%", "rates", "seeds", "done", "to go")
        for cell in cells:
            trained, total = parameters[cell.model, cell.method]
            runs, left = expected_runs(cell, directory), remaining_runs(cell, directory)
            finished = sum(directory.record(run) is not None for run in runs)
            broken = len(runs) - finished - len(left)
            estimate = costs.remaining(cell, directory)
            seconds, unknown = seconds + (estimate or 0.0), unknown + (estimate is None)
            done, failed, size = done + finished, failed + broken, size + len(runs)
            table.add_row(
                escape(cell.method),
                f"{trained:,}",
                f"{100 * trained / total:.3g}",
                f"{len(cell.rates)}",
                f"{cell.seeds}",
                f"{finished}/{len(runs)}" + (f", {broken} failed" if broken else ""),
                "-" if not left else "?" if estimate is None else duration(estimate),
            )
        tables.append(table)
    lines = [f"{done} of {size} runs done, {failed} failed, in {directory.path}"]
    if not unknown and done + failed < size:
        lines.append(f"about {duration(seconds / workers)} to go with {workers} worker(s)")
    if grid.recipe.stage == "validation":
        lines.append("stage validation: test is not touched")
    return Group(*tables, *lines)


def place_table(title: str, *columns: str) -> Table:
    """A table of methods, narrow enough for a terminal of 80 columns."""
    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("method", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def by_place(grid: Grid) -> list[tuple[str, list[Cell]]]:
    """The cells of each model and task, under their names."""
    places = groupby(grid.cells, key=lambda cell: (cell.model, cell.task))
    return [(f"[b]{escape(task)}[/b], {escape(model)}", list(cells)) for (model, task), cells in places]


def duration(seconds: float) -> str:
    """A time for people, as in "35 s", "12 min" or "7.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
