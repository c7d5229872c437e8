"""Fixtures of the tests on tasks."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from trimtab.tasks import Task, get_task, task_names

DATA = Path(__file__).parent.parent / "data"
TASK_FILES = [str(Path(__file__).parents[2] / "benchmarks" / "sort_digits.py")]
"""Tasks of this repository outside the package, which are named by their paths."""


@pytest.fixture
def data() -> Path:
    """Small files for tests, one folder a task."""
    return DATA


@pytest.fixture(params=[*task_names(), *TASK_FILES], ids=lambda name: Path(name).stem)
def task(request: pytest.FixtureRequest) -> Task:
    """Every task of the registry, and those in files; a stored one reads the few rows of tests/data/<its name>."""
    stored = "data_dir" in inspect.signature(type(get_task(request.param))).parameters
    return get_task(request.param, **({"data_dir": DATA / request.param} if stored else {}))
