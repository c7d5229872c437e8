"""What is put into PEFT's tests fits them."""

from __future__ import annotations

import inspect

import pytest

from . import suite, translation


def test_every_translated_test_is_there() -> None:
    """A test that PEFT renames would otherwise go on with LoRA."""
    if suite.unavailable() is not None:
        pytest.skip("PEFT's tests are not there: see test_sdist.py")
    functions = {
        name
        for module in suite.modules().values()
        for _, test_class in inspect.getmembers(module, inspect.isclass)
        for name, _ in inspect.getmembers(test_class, inspect.isfunction)
    }
    assert translation.PATCHES.keys() <= functions
