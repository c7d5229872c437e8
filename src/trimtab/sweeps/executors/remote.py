"""Workers that another program starts, maybe elsewhere: they write down what they run, as nobody sees their memory."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from uuid import uuid4

from trimtab.files import write_text
from trimtab.results import COMMAND_VARIABLE, user_command
from trimtab.sweeps.configuration import Configuration
from trimtab.sweeps.directory import SweepDirectory
from trimtab.sweeps.executors.base import run_worker
from trimtab.sweeps.grid import Grid
from trimtab.sweeps.groups import Group
from trimtab.sweeps.recipe import SweepRecipe


@dataclass(frozen=True)
class RemoteWorker:
    """A worker that can be sent to another process; calling it takes runs until none is left.

    Attributes:
        recipe: the grid's.
        path: the sweep's directory, which has this path there too.
        threads: CPU threads; None: as torch would.
        command: what the user typed: records name it as theirs, not the line that started the worker.
        name: of the file in which it says what it runs.
    """

    recipe: SweepRecipe
    path: str
    threads: int | None
    command: str
    name: str = field(default_factory=lambda: uuid4().hex)

    @classmethod
    def of(cls, grid: Grid, directory: SweepDirectory, threads: int | None) -> Self:
        """A worker for the runs of `grid`."""
        worker = cls(grid.recipe, str(directory.path.resolve()), threads, user_command())
        worker._note.parent.mkdir(exist_ok=True)
        return worker

    @property
    def _note(self) -> Path:
        return Path(self.path) / "workers" / self.name

    @property
    def run(self) -> str:
        """The hash of the run that it works on, or worked on when it ended; empty: none."""
        return self._note.read_text(encoding="utf-8") if self._note.is_file() else ""

    def forget(self) -> None:
        """Remove what it has written down."""
        self._note.unlink(missing_ok=True)

    def __call__(self) -> None:
        """Take runs until none is left."""
        os.environ[COMMAND_VARIABLE] = self.command

        def announce(run: Configuration | Group | None) -> None:
            write_text(self._note, "" if run is None else run.hash)

        run_worker(self.recipe, self.path, "auto", self.threads, announce)
