"""The directory of a sweep: what it holds, who works on what, and the two files that are made of it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from trimtab.files import write_text
from trimtab.results import CellRecord, FailedRun, RunRecord
from trimtab.sweeps.configuration import Configuration
from trimtab.sweeps.lines import load_record, read_lines, write_lines
from trimtab.sweeps.shared_cells import one_a_cell
from trimtab.training import RunDirectory

MARKER = "sweep.json"


class SweepDirectory:
    """The files of a sweep.

    | file | what |
    | --- | --- |
    | `results.jsonl` | one line a finished run, made of the files below whenever one of them is new |
    | `failures.jsonl` | one line a failed run, likewise |
    | `cells.jsonl` | one line a cell of each recipe: the chosen rate, and the values of every seed |
    | `sweep.json` | the last recipe; its presence says what the directory is |
    | `runs/TRAINING/training/` | the run directory of a training |
    | `runs/TRAINING/SPLIT-RUN.json` | the record of a run that scored it; written last, never changed |
    | `runs/TRAINING/SPLIT-RUN.jsonl` | every answer |
    | `runs/TRAINING/SPLIT-RUN.failed.json`, `.txt` | in place of a record: the error, and its traceback |
    | `groups/GROUP/` | while runs are trained together: see `Pass` |
    | `runs/TRAINING/lock` | held (flock) by the process that works on this training |

    TRAINING, RUN and GROUP are hashes. A file is written under a temporary name and renamed: it is there completely or
    not at all. Finished records are kept in memory; they do not change. An empty record is none.
    """

    def __init__(self, path: str | Path) -> None:
        """The sweep at `path`, which need not exist."""
        self.path = Path(path)
        self._records: dict[str, RunRecord] = {}

    @property
    def results_file(self) -> Path:
        """A line for each finished run."""
        return self.path / "results.jsonl"

    @property
    def failures_file(self) -> Path:
        """A line for each failed run."""
        return self.path / "failures.jsonl"

    @property
    def cells_file(self) -> Path:
        """A line for each model, task and method."""
        return self.path / "cells.jsonl"

    @property
    def runs(self) -> Path:
        """The folder of the trainings."""
        return self.path / "runs"

    def check(self) -> None:
        """Raise FileExistsError if something else than a sweep is here."""
        if self.path.exists() and not self.path.is_dir():
            raise FileExistsError(f"{self.path} is a file, not a directory.")
        if not self.path.is_dir() or (self.path / MARKER).is_file():
            return
        # A process that was killed at its very start leaves the marker under its temporary name. The marker is looked
        # for once more behind the other files: another sweep may have started in between.
        others = any(not path.name.startswith(f".{MARKER}.") for path in self.path.iterdir())
        if others and not (self.path / MARKER).is_file():
            raise FileExistsError(f"{self.path} holds files of something else; choose an empty output directory.")

    def open(self, recipe: dict[str, Any]) -> None:
        """Make the directory and write the recipe into it.

        Raises:
            FileExistsError: something else than a sweep is here.
        """
        self.check()
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.path / MARKER, json.dumps({"recipe": recipe}, indent=2, ensure_ascii=False) + "\n")
        self.runs.mkdir(exist_ok=True)  # behind the marker, without which it would be somebody else's

    def home(self, run: Configuration | str) -> Path:
        """The folder of the run's training, or of the training of that hash."""
        return self.runs / (run if isinstance(run, str) else run.training_hash)

    def training(self, run: Configuration) -> RunDirectory:
        """The run directory of the run's training."""
        return RunDirectory(self.home(run) / "training")

    def file(self, run: Configuration, suffix: str) -> Path:
        """A file of the run."""
        return self.home(run) / f"{run.split}-{run.hash}{suffix}"

    def record(self, run: Configuration) -> RunRecord | None:
        """The record of a finished run."""
        if run.hash not in self._records:
            record = load_record(self.file(run, ".json"), RunRecord)
            if record is None:
                return None
            self._records[run.hash] = record
        return self._records[run.hash]

    def suppose(self, records: Iterable[RunRecord]) -> None:
        """Let the runs of `records` count as finished for this object, and write nothing: for a plan."""
        for record in records:
            self._records.setdefault(record.run, record)

    def failure(self, run: Configuration) -> FailedRun | None:
        """The record of a failed run."""
        return load_record(self.file(run, ".failed.json"), FailedRun)

    def forget_failure(self, run: Configuration) -> None:
        """Let a failed run be run again."""
        for suffix in (".failed.json", ".failed.txt"):
            self.file(run, suffix).unlink(missing_ok=True)

    def groups(self) -> list[Path]:
        """The folders of all groups of runs that are being trained together, or were when a process was killed."""
        return sorted((self.path / "groups").glob("*"))

    def group(self, name: str) -> Path:
        """The folder of one such group."""
        return self.path / "groups" / name

    @contextmanager
    def claimed(self, run: Configuration | str, patience: float = 0.0) -> Iterator[bool]:
        """Within `with`, whether this process alone works on the run's training.

        The operating system frees the lock of a process that ends, however it ends.

        Args:
            run: one that has this training, or the training's hash.
            patience: seconds to wait for another process that works on it.
        """
        home = self.home(run)
        home.mkdir(parents=True, exist_ok=True)
        lock = FileLock(home / "lock")
        try:
            lock.acquire(timeout=patience)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def remove_weights(self, run: Configuration) -> None:
        """Delete what the run's training has of weights; losses and settings stay."""
        self._remove(run, "*weights*")

    def remove_checkpoints(self, run: Configuration) -> None:
        """Delete the checkpoints of the run's training: it does not go on, or begins anew."""
        self._remove(run, "*checkpoints*")

    def _remove(self, run: Configuration, pattern: str) -> None:
        for found in [path for path in self.training(run).path.rglob(pattern) if path.is_dir()]:
            # Renamed first: a kill in between must not leave half of a folder under its name.
            hidden = found.name.startswith(".")
            removed = found if hidden else found.rename(found.with_name(f".{found.name}.{os.getpid()}"))
            shutil.rmtree(removed, ignore_errors=True)

    def assemble(self) -> None:
        """Make results.jsonl and failures.jsonl of the runs' own files."""
        with FileLock(self.path / ".assembling"):
            for target, pattern, kind in (
                (self.results_file, "*/*-*.json", RunRecord),
                (self.failures_file, "*/*-*.failed.json", FailedRun),
            ):
                found = [path for path in self.runs.glob(pattern) if kind is FailedRun or ".failed." not in path.name]
                records: list[Any] = [record for path in found if (record := load_record(path, kind)) is not None]
                write_lines(target, sorted(records, key=attrgetter("finished", "run")))

    def update_cells(self, change: Callable[[list[CellRecord]], list[CellRecord]]) -> None:
        """Replace the lines of cells.jsonl by what `change` makes of them; one process at a time."""
        with FileLock(self.path / ".assembling"):
            old = load_cell_lines(self.path) if self.cells_file.is_file() else []
            write_lines(self.cells_file, change(old))


def load_results(path: str | Path) -> list[RunRecord]:
    """The finished runs of a sweep, in the order in which they finished.

    Args:
        path: the sweep's directory, or a file of such lines.

    Raises:
        FileNotFoundError: there is no results.jsonl.
        ValueError: a line of another schema.
    """
    return read_lines(Path(path) if Path(path).is_file() else SweepDirectory(path).results_file, RunRecord)


def load_cells(path: str | Path) -> list[CellRecord]:
    """Every model, task, method and settings of a sweep: the chosen rate, and the values of every seed.

    Where recipes that share the directory want other seeds or rates of one, the line with the most finished seeds.

    Args:
        path: the sweep's directory.

    Raises:
        FileNotFoundError: there is no cells.jsonl.
        ValueError: a line of another schema.
    """
    return one_a_cell(load_cell_lines(path))[0]


def load_cell_lines(path: str | Path) -> list[CellRecord]:
    """Every line of cells.jsonl, of whichever recipe; the rest as in `load_cells`."""
    return read_lines(SweepDirectory(path).cells_file, CellRecord)


def load_failures(path: str | Path) -> list[FailedRun]:
    """The failed runs of a sweep.

    Args:
        path: the sweep's directory.

    Raises:
        FileNotFoundError: there is no failures.jsonl.
        ValueError: a line of another schema.
    """
    return read_lines(SweepDirectory(path).failures_file, FailedRun)


def now() -> str:
    """The time, ISO 8601 in UTC, to the microsecond."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
