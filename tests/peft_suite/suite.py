"""PEFT's test modules with our cases in them, loaded once."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from . import sdist, translation

_loaded: dict[str, ModuleType] = {}
_unavailable: list[Exception] = []


def load(cache: Path) -> None:
    """Load and translate the modules; a failure to get them is kept for `unavailable`."""
    if _loaded:
        return
    try:
        found = sdist.load(cache)
    except (sdist.SuiteUnavailable, ValueError) as error:
        _unavailable[:] = [error]
        return
    translation.replace_cases(found)
    _loaded.update(found)


def unavailable() -> Exception | None:
    """Why the modules are not there; None if they are."""
    return _unavailable[0] if _unavailable else None


def modules() -> dict[str, ModuleType]:
    """The modules by name; empty if they are not there."""
    return _loaded


def module(name: str) -> ModuleType:
    """One of the modules, for a test module of ours; skips that module if PEFT's is not there."""
    if name not in _loaded:
        pytest.skip("PEFT's tests are not there: see test_sdist.py", allow_module_level=True)
    return _loaded[name]
