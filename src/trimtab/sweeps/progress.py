"""The whole grid while it runs: a line for each run that ends, and a bar with the time left and the best so far."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from trimtab.sweeps.configuration import Configuration
from trimtab.sweeps.costs import Costs
from trimtab.sweeps.directory import SweepDirectory
from trimtab.sweeps.grid import Cell, Grid
from trimtab.sweeps.groups import Group
from trimtab.sweeps.plan import duration
from trimtab.sweeps.selection import expected_runs, finished_finals, scored_rates
from trimtab.sweeps.tracking import Tracker


class SweepProgress:
    """What the directory holds of the grid, on standard error; `refresh` looks again."""

    def __init__(
        self, grid: Grid, directory: SweepDirectory, costs: Costs, workers: int, tracker: Tracker | None = None
    ) -> None:
        """Begin with what is there: it is counted and not announced."""
        self.grid, self.directory, self.costs, self.workers, self.tracker = grid, directory, costs, workers, tracker
        self._settled: set[str] = set()
        self._size = grid.size
        self._last: Cell | None = None
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar = Progress(
            MofNCompleteColumn(),
            BarColumn(bar_width=20),
            TimeElapsedColumn(),
            TextColumn("left {task.fields[left]}  {task.fields[best]}"),
            TextColumn("{task.description}", markup=False),
            console=self._console,
        )
        self._row = self._bar.add_task("", total=self._size, left="?", best="")

    def __enter__(self) -> Self:
        """Show the bar."""
        self._look(announce=False)
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the terminal back."""
        self._bar.stop()

    def announce(self, run: Configuration | Group | None) -> None:
        """What this process runs now; None: it has ended."""
        if run is not None:
            self._bar.update(self._row, description=f"now {run.describe()}")
        self.refresh()

    def refresh(self) -> None:
        """Look into the directory and say what is new."""
        self._look(announce=True)

    def _look(self, announce: bool) -> None:
        expected = [(cell, expected_runs(cell, self.directory)) for cell in self.grid.cells]
        self._size = sum(len(runs) for _, runs in expected)  # smaller than planned where no rate can be chosen any more
        for cell, runs in expected:
            for run in runs:
                if run.hash not in self._settled and self._settle(run, announce):
                    self._last = cell
        lefts = [self.costs.remaining(cell, self.directory) for cell in self.grid.cells]
        known = [seconds for seconds in lefts if seconds is not None]
        left = duration(sum(known) / self.workers) + ("" if len(known) == len(lefts) else " and more") if known else "?"
        self._bar.update(self._row, total=self._size, completed=len(self._settled), left=left, best=self._best())

    def _settle(self, run: Configuration, announce: bool) -> bool:
        """Count a run that has ended and say so; whether it has."""
        record = self.directory.record(run)
        failure = None if record is not None else self.directory.failure(run)
        if record is None and failure is None:
            return False
        self._settled.add(run.hash)
        if record is not None:
            self.costs.learn(record)
            if self.tracker is not None:
                self.tracker.log(record)
            outcome = f"{record.score}, {duration(record.training_seconds + record.evaluation_seconds)}"
        else:
            outcome = f"FAILED, {failure.error}: {failure.message}" if failure else ""
        if announce:
            count = f"[{len(self._settled)}/{self._size}]"
            self._console.print(f"{count} {run.describe()} {outcome}", markup=False)
        return True

    def _best(self) -> str:
        """The best cell so far of the model and task of the run that ended last, as `best_of` says."""
        if self._last is None:
            return ""
        found = best_of([cell for cell in self.grid.cells if same_question(cell, self._last)], self.directory)
        return "" if found is None else f"best {100 * found[0]:.1f} % {found[1]} "


def same_question(one: Cell, other: Cell) -> bool:
    """Whether two cells are of the same model and task: only then can their accuracies be compared."""
    return (one.model, one.task) == (other.model, other.task)


def best_of(cells: Sequence[Cell], directory: SweepDirectory) -> tuple[float, str] | None:
    """The best accuracy and what it is, by the final scores where there are any, else by validation; None: no score."""
    final = [cell for cell in cells if finished_finals(cell, directory)]
    scores = [score for cell in final or cells if (score := cell_score(cell, directory)) is not None]
    return max(scores, key=lambda score: score[0], default=None)


def cell_score(cell: Cell, directory: SweepDirectory) -> tuple[float, str] | None:
    """The mean accuracy of a cell's finals, else of its best rate on validation, and what it is; None: nothing yet."""
    if finals := finished_finals(cell, directory):
        return statistics.fmean(record.accuracy for record in finals), f"{cell.name} ({finals[0].split})"
    if best := scored_rates(cell, directory):
        return best[0].accuracy, f"{cell.name} (validation)"
    return None
