"""Runs that end their process: counted, given up and recorded wherever workers run, and in the user's name."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from sweeps.small_sweep import small_recipe
from trimtab.sweeps import (
    ExecutorOptions,
    Grid,
    SweepDirectory,
    UnfinishedSweepError,
    load_failures,
    load_results,
    sweep,
)
from trimtab.sweeps.executors.deaths import Deaths

ELSEWHERE = {
    "processes": {"executor": "local", "workers": 2, "threads": 1},
    "submitit": {"executor": "slurm", "slurm": {"cluster": "local", "timeout_min": 5}, "threads": 1},
    "ray": {"executor": "ray", "threads": 1},
}
DEADLY = """
from __future__ import annotations
import os, signal
from dataclasses import dataclass
from typing import ClassVar
from trimtab.tasks.base import Example, Task

@dataclass(frozen=True)
class Deadly(Task):
    spared: int = 0
    name: ClassVar[str] = "deadly"
    max_new_tokens: ClassVar[int] = 1

    def examples(self, split, seed):
        if os.getpid() != self.spared:
            os.kill(os.getpid(), signal.SIGKILL)
        return iter([Example("a\\n", "b", "b", f"{split}:0")])

    def parse(self, output):
        return output
"""


@pytest.mark.slow
@pytest.mark.parametrize("where", ELSEWHERE)
def test_a_run_that_ends_its_process_twice_has_failed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Each executor goes on with the others, and every record names the command that the user typed."""
    if where in ("submitit", "ray") and importlib.util.find_spec(where) is None:
        pytest.skip(f"{where} is not installed")
    if where == "submitit":  # it waits for a result that a slow network disk might still show
        monkeypatch.setattr("submitit.core.core.Job._results_timeout_s", 0)
    (tmp_path / "deadly.py").write_text(DEADLY)
    deadly = {"name": str(tmp_path / "deadly.py"), "options": {"spared": os.getpid()}}
    tasks = [deadly, *small_recipe(folder).tasks]
    recipe = small_recipe(folder, tasks=tasks, methods=["post-block"], learning_rates=[0.05], seeds=[0])
    monkeypatch.setattr(sys, "argv", ["/opt/bin/trimtab", "sweep", "recipe.yaml"])
    options: dict[str, Any] = ELSEWHERE[where]
    with pytest.raises(UnfinishedSweepError, match="its process ended 2 times"):
        sweep(recipe, tmp_path / "out", probe=False, options=ExecutorOptions(**options))
    (failure,), (result,) = load_failures(tmp_path / "out"), load_results(tmp_path / "out")
    assert (failure.task, failure.error) == (deadly["name"], "ChildProcessError")
    assert result.task == tasks[1]["name"]
    assert {failure.environment.command, result.environment.command} == {"trimtab sweep recipe.yaml"}
    assert not list((tmp_path / "out").glob("workers/*"))


def test_workers_that_die_without_a_run_end_the_sweep(folder: Path, tmp_path: Path) -> None:
    """Whatever ends them would end the next ones too; a run's own first death is let pass."""
    deaths = Deaths(Grid.of(small_recipe(folder)), SweepDirectory(tmp_path), "cpu")
    deaths.count("0123456789abcdef", "exit code 1")
    deaths.count("", "exit code 1")
    with pytest.raises(ChildProcessError, match="exit code 3 before they have a run"):
        deaths.count("", "exit code 3")
