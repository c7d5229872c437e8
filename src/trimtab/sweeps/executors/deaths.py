"""Workers that die, and the runs that they die of."""

from __future__ import annotations

from collections import Counter

from trimtab.sweeps.directory import SweepDirectory
from trimtab.sweeps.grid import Grid
from trimtab.sweeps.passes import Pass
from trimtab.sweeps.selection import open_runs
from trimtab.sweeps.worker import write_failure

LIMIT = 2
"""How often a run may end its process before it counts as failed: once may be somebody else's doing."""


class Deaths:
    """Counts, run by run, the workers that died while they worked on it."""

    def __init__(self, grid: Grid, directory: SweepDirectory, device: str) -> None:
        """Nobody has died yet; failures are recorded as of `device`."""
        self._grid, self._directory, self._device = grid, directory, device
        self._counts: Counter[str] = Counter()

    def count(self, run: str, reason: str) -> None:
        """A worker has died; at the limit, record that its run has failed.

        Args:
            run: the hash of what it worked on; empty: nothing.
            reason: how it ended.

        Raises:
            ChildProcessError: workers die without a run: what ends them is not the runs' doing.
        """
        self._counts[run] += 1
        if self._counts[run] < LIMIT:
            return
        if not run:
            raise ChildProcessError(f"Workers end with {reason} before they have a run: see what they said.")
        Pass(self._directory.group(run)).give_up()  # where it is a group's name: the next pass is a smaller one
        error = ChildProcessError(f"its process ended {LIMIT} times, the last time with {reason}")
        waiting = [each for cell in self._grid.cells for each in open_runs(cell, self._directory)]
        for each in (each for each in waiting if each.hash == run):
            with self._directory.claimed(each) as mine:
                if mine and self._directory.record(each) is None:
                    write_failure(each, self._directory, error, f"{error}\n", self._device)
