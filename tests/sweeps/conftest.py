"""Sweeps train in the test's process: a Trainer collects garbage at its end, which takes long among many objects."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

from sweeps.small_sweep import Ran
from trimtab.sweeps import run_one, worker


@pytest.fixture(scope="package", autouse=True)
def _imports_are_no_garbage() -> None:
    gc.freeze()


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny model and the small task."""
    return tmp_path_factory.mktemp("sweep")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Ran:
    """What was run, in order."""
    order: Ran = []

    def noted(run: Any, *others: Any) -> Any:
        order.append((run.label, run.learning_rate, run.seed, run.split))
        return run_one(run, *others)

    monkeypatch.setattr(worker, "run_one", noted)
    return order
