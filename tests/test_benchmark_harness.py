"""What benchmarks measure with: peak memory, rounds, medians, targets; what they say and leave when a process fails."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark_scripts import benchmark


def test_peak_memory_counts_from_where_it_starts() -> None:
    """What was used before does not count, what is used and freed after does."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("no /proc/self/clear_refs")
    torch.ones(64, 2**20)  # 256 MiB, gone at once
    memory = benchmark("_measure").PeakMemory()
    before = memory.mib
    torch.ones(16, 2**20)  # 64 MiB
    assert before < 8
    assert 60 < memory.mib < 72


def test_rounds_alternate_in_direction() -> None:
    """A drift of the machine falls on all alike."""
    assert list(benchmark("_harness").in_rotation("abc", 3)) == list("abc" + "cba" + "abc")


def test_a_summary_is_the_median_over_all_steps() -> None:
    """One slow step, or round, does not move it."""
    measured = benchmark("_measure").Measured
    runs = [measured([1.0, 2.0, 90.0], 10.0, 7, 0.5), measured([3.0, 2.0, 2.5], 30.0, 7, 0.5)]
    summary = benchmark("_harness").Summary.of(runs)
    assert (summary.seconds, summary.rounds, summary.peak_mib) == (2.25, [2.0, 2.5], 20.0)


@pytest.mark.parametrize(
    ("sign", "ratio", "met"), [("<=", 1.05, True), ("<=", 1.2, False), (">=", 1.2, True), (">=", 1.05, False)]
)
def test_a_missed_target_is_said_to_be_missed(sign: str, ratio: float, met: bool) -> None:
    """In both directions."""
    *_, verdict = benchmark("_harness").Target("a / b", sign, 1.1).row(ratio)
    assert verdict == ("met" if met else "**missed**")


def test_a_failing_process_is_named() -> None:
    """The error says which contestant failed."""
    with pytest.raises(RuntimeError, match="'floor' failed"):
        benchmark("_harness").run_fresh(benchmark("_measure").Job("floor", "nowhere"), python="/bin/false")


def test_an_unfinished_environment_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half an environment would be taken for a whole one by the next run."""
    environment = tmp_path / "environment"

    def fail(command: list[str], **_: Any) -> None:
        environment.mkdir(exist_ok=True)
        if "pip" in command:
            raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(subprocess.CalledProcessError):
        benchmark("pyreft_environment").make(environment)
    assert not environment.exists()
