"""Finished runs in a trackio dashboard."""

from __future__ import annotations

import importlib
import logging
from typing import Any

from filelock import FileLock

from trimtab.files import write_text
from trimtab.results import RunRecord
from trimtab.sweeps.directory import SweepDirectory

_COLUMNS = ("accuracy", "standard_error", "n", "loss", "training_seconds", "evaluation_seconds", "peak_memory")
_PATIENCE = 60.0
"""Seconds to wait while another sweep on the directory logs a run."""


logger = logging.getLogger(__name__)


class Tracker:
    """Logs each finished run once: its loss curve, then its score.

    `tracked.txt` in the sweep's directory has a line, run and project, for each that has been logged; several sweeps on
    one directory share it. What fails here is not the sweep's: it is said once, and a later sweep logs what is missing.
    """

    def __init__(self, project: str, directory: SweepDirectory) -> None:
        """Log into the trackio project called `project`.

        Raises:
            ModuleNotFoundError: trackio is not installed.
        """
        try:
            self._trackio: Any = importlib.import_module("trackio")
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("Tracking needs trackio. Run: pip install 'trimtab[track]'") from error
        self._project = project
        self._file = directory.path / "tracked.txt"
        self._lock = FileLock(directory.path / ".tracking", timeout=_PATIENCE)
        self._failed = False

    def log(self, record: RunRecord) -> None:
        """Log a finished run, unless it has been logged, by whatever sweep; a failure is a warning."""
        line = f"{record.run} {self._project}"
        try:
            with self._lock:
                logged = self._file.read_text(encoding="utf-8").splitlines() if self._file.is_file() else []
                if line not in logged:
                    self._send(record)
                    write_text(self._file, "".join(f"{each}\n" for each in sorted([*logged, line])))
        except Exception as error:  # whatever a dashboard may raise
            if not self._failed:
                self._failed = True
                logger.warning("The sweep goes on, but tracking failed. %s: %s", type(error).__name__, error)

    def _send(self, record: RunRecord) -> None:
        name = f"{record.method}-{record.task}-{record.learning_rate:g}-{record.seed}-{record.split}-{record.run[:6]}"
        self._trackio.init(project=self._project, name=name, config=record.configuration)
        try:
            for step, loss in record.loss_curve:
                self._trackio.log({"training_loss": loss}, step=int(step))
            self._trackio.log({column: getattr(record, column) for column in _COLUMNS}, step=record.steps)
        finally:
            self._trackio.finish()
