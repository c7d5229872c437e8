"""A Trainer collects garbage at its end, which takes long among the million objects of a test process."""

from __future__ import annotations

import gc

import pytest


@pytest.fixture(scope="package", autouse=True)
def _imports_are_no_garbage() -> None:
    gc.freeze()
