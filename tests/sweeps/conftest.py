"""Sweeps train in the test's process: a Trainer collects garbage at its end, which takes long among many objects."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

from sweeps.broken_passes import Passes
from sweeps.small_sweep import Ran
from trimtab.sweeps import groups, run_one, worker
from trimtab.training import train_together


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


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Passes:
    """The methods, rates and seeds of each pass that is started."""
    started: Passes = []

    def noted(model: Any, jobs: Any, *others: Any, **given: Any) -> Any:
        started.append([(job.method.label, job.method.learning_rate, job.settings.seed) for job in jobs])
        return train_together(model, jobs, *others, **given)

    monkeypatch.setattr(groups, "train_together", noted)
    return started
