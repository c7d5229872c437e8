"""Sweeps that are killed with SIGKILL at random moments: nothing is lost, repeated or half-read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sweeps.small_sweep import assert_same_numbers, numbers, small_recipe
from trimtab.sweeps import load_results, sweep

TESTS = Path(__file__).parents[1]
KILLS = 12


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the killer saw, and the numbers of a sweep that nobody disturbed."""
    folder = tmp_path_factory.mktemp("killed")
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    seed = str(int.from_bytes(os.urandom(2), "big"))
    done = subprocess.run(
        [sys.executable, str(TESTS / "sweeps" / "killing.py"), str(folder), str(KILLS), seed],
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, f"seed {seed}: {done.stderr[-3000:]}"
    sweep(small_recipe(folder), folder / "undisturbed", probe=False)
    expected = json.loads(json.dumps(numbers(load_results(folder / "undisturbed"))))
    return {"expected": expected, **json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.slow
@pytest.mark.parametrize("case", ["alone", "two", "together"])
def test_a_killed_sweep_ends_with_the_numbers_of_one_that_was_not(reports: dict[str, Any], case: str) -> None:
    """Every run is there, with the same loss, accuracy and answers' count; to rounding where a kill changes groups."""
    if case == "together":
        assert_same_numbers(reports[case]["numbers"], reports["expected"])
    else:
        assert reports[case]["numbers"] == reports["expected"]


@pytest.mark.slow
@pytest.mark.parametrize("case", ["alone", "two", "together"])
def test_what_has_finished_is_never_touched_again(reports: dict[str, Any], case: str) -> None:
    """No record and no training's result changes, and every one of them could be read after every kill."""
    assert reports[case]["killed"] > 0
    assert reports[case]["changed"] == []
    assert reports[case]["leftovers"] == []


@pytest.mark.slow
@pytest.mark.parametrize("case", ["alone", "two", "together"])
def test_only_what_was_killed_is_started_again(reports: dict[str, Any], case: str) -> None:
    """A kill costs at most the run in hand: there are no more starts than runs and kills together."""
    started = reports[case]["started"]
    assert started.keys() == reports["expected"].keys()
    assert sum(started.values()) <= len(started) + reports[case]["killed"]
