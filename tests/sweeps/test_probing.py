"""A probe that fails costs the estimate, and nothing else."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sweeps.small_sweep import small_recipe
from trimtab.sweeps import ExecutorOptions, load_results, sweep
from trimtab.sweeps.costs import probe


def test_a_failing_probe_is_reported_and_the_sweep_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the two families only the other one has an estimate; every run is run."""

    def broken(run: Any, bases: Any) -> Any:
        if run.method.family == "lora":
            raise RuntimeError("no kernel image is available")
        return probe(run, bases)

    monkeypatch.setattr("trimtab.sweeps.costs.probe", broken)
    console = Console(file=io.StringIO(), width=200)
    recipe = small_recipe(folder, methods=["post-block", "lora"], learning_rates=[0.002], seeds=[0])
    with caplog.at_level(logging.WARNING):
        sweep(recipe, tmp_path / "out", console=console)
    (said,) = [record.getMessage() for record in caplog.records if "estimate" in record.getMessage()]
    assert "lora" in said
    assert "RuntimeError: no kernel image is available" in said
    assert {each.method for each in load_results(tmp_path / "out")} == {"post-block", "lora"}


def test_a_device_that_is_not_there_is_still_refused(folder: Path, tmp_path: Path) -> None:
    """That is a mistake of the user's, said before anything runs."""
    with pytest.raises(ValueError, match="Unknown device 'gpu'"):
        sweep(small_recipe(folder), tmp_path / "out", options=ExecutorOptions(device="gpu"))
