"""Passes over several runs that are interrupted, killed or fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from small_runs import StopAfter
from sweeps.small_sweep import quietly, small_recipe
from trimtab.sweeps import Grid, SweepDirectory, groups
from trimtab.training import train_together

Passes = list[list[tuple[str, float, int]]]
"""Methods, rates and seeds of each pass."""


class Killed(BaseException):
    """What nothing in the sweep handles, as nothing handles SIGKILL: the disk is left as it is."""


def break_passes(monkeypatch: pytest.MonkeyPatch, error: BaseException | None, steps: int = 0, over: int = 0) -> None:
    """Let passes of more than `over` runs raise `error`, at once or after a number of steps."""

    def broken(model: Any, jobs: Any, *others: Any, **given: Any) -> Any:
        if error is None or len(jobs) <= over:
            return train_together(model, jobs, *others, **given)
        if not steps:
            raise error
        return train_together(model, jobs, *others, **given, callbacks=[StopAfter(steps)])

    monkeypatch.setattr(groups, "train_together", broken)


def interrupted_group(
    folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Grid, SweepDirectory, list[str]]:
    """A sweep whose first pass was interrupted behind a checkpoint, and the trainings of that pass."""
    break_passes(monkeypatch, KeyboardInterrupt(), steps=4)
    recipe = small_recipe(folder, together=4)
    with pytest.raises(KeyboardInterrupt):
        quietly(recipe, out)
    directory = SweepDirectory(out)
    (home,) = directory.groups()
    return Grid.of(recipe), directory, json.loads((home / "members.json").read_text())
