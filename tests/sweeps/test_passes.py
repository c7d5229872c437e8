"""What the end of a pass says about the next one, and what is left of passes that nobody goes on with."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweeps.broken_passes import Killed, Passes, break_passes, interrupted_group
from sweeps.small_sweep import METHODS, TRAINING, quietly, small_recipe
from trimtab.sweeps import Grid, SweepDirectory, groups, load_results
from trimtab.sweeps.executors.deaths import Deaths
from trimtab.sweeps.passes import Pass

TRIALS = {"seeds": [0], "stage": "validation"}
"""Four runs, which fit into one pass."""


def end_passes(folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, times: int) -> None:
    """Start a sweep a number of times, whose first pass ends with `error` before its first checkpoint."""
    noted = groups.train_together
    break_passes(monkeypatch, error)
    for _ in range(times):
        with pytest.raises(type(error)):
            quietly(small_recipe(folder, together=4, **TRIALS), out)
    monkeypatch.setattr(groups, "train_together", noted)


@pytest.mark.parametrize(
    ("error", "times", "sizes"),
    [(KeyboardInterrupt(), 3, [4]), (SystemExit(143), 3, [4]), (Killed(), 1, [4]), (Killed(), 2, [2, 2])],
    ids=lambda value: getattr(type(value), "__name__", None) if isinstance(value, BaseException) else None,
)
def test_only_a_second_kill_makes_the_next_pass_smaller(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    passes: Passes,
    error: BaseException,
    times: int,
    sizes: list[int],
) -> None:
    """Before the first checkpoint: an interruption never does, one kill does not, as both may come of anything."""
    end_passes(folder, tmp_path / "out", monkeypatch, error, times)
    quietly(small_recipe(folder, together=4, **TRIALS), tmp_path / "out")
    assert [len(each) for each in passes] == sizes
    assert len(load_results(tmp_path / "out")) == 4
    assert list((tmp_path / "out" / "groups").iterdir()) == []


def test_a_kill_behind_a_checkpoint_does_not_count(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passes: Passes
) -> None:
    """The pass goes on, however often it is killed."""
    end_passes(folder, tmp_path / "out", monkeypatch, Killed(), 1)
    for steps in (2, 4):
        noted = groups.train_together
        break_passes(monkeypatch, KeyboardInterrupt(), steps=steps)
        with pytest.raises(KeyboardInterrupt):
            quietly(small_recipe(folder, together=4, **TRIALS), tmp_path / "out")
        monkeypatch.setattr(groups, "train_together", noted)
        end_passes(folder, tmp_path / "out", monkeypatch, Killed(), 2)
    quietly(small_recipe(folder, together=4, **TRIALS), tmp_path / "out")
    assert [len(each) for each in passes] == [4]


def test_deaths_that_an_executor_has_counted_make_the_next_pass_smaller(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passes: Passes
) -> None:
    """Even behind a checkpoint: the pass ends its process again and again."""
    noted = groups.train_together
    grid, directory, _ = interrupted_group(folder, tmp_path / "out", monkeypatch)
    monkeypatch.setattr(groups, "train_together", noted)
    (home,) = directory.groups()
    deaths = Deaths(grid, directory, "cpu")
    for _ in range(2):
        deaths.count(home.name, "signal SIGKILL")
    quietly(small_recipe(folder, together=4), tmp_path / "out")
    assert len(passes[0]) == 2


def test_a_pass_of_which_a_run_was_trained_elsewhere_is_cleared_away(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a sweep that knows only some of its runs; a pass of which all still wait is left to who knows them."""
    _, directory, _ = interrupted_group(folder, tmp_path / "out", monkeypatch)
    other = {"learning_rates": [0.01], "seeds": [0], "methods": METHODS[:1]}
    quietly(small_recipe(folder, **other), directory.path)
    assert len(directory.groups()) == 1
    quietly(small_recipe(folder, **{**other, "learning_rates": [0.002]}, keep="nothing"), directory.path)
    assert directory.groups() == []


def test_a_pass_that_somebody_else_works_on_is_left_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it can be gone on with by nobody else: its runs are claimed."""
    grid, directory, hashes = interrupted_group(folder, tmp_path / "out", monkeypatch)
    with SweepDirectory(directory.path).claimed(hashes[1]) as mine:
        assert mine
        groups.forget_groups(grid, directory)
        assert len(directory.groups()) == 1
    groups.forget_groups(Grid.of(small_recipe(folder)), directory)
    assert directory.groups() == []


SWEEP = """
import json, signal, sys
from trimtab.sweeps import ExecutorOptions, SweepRecipe, sweep

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is born deaf to it
    options = ExecutorOptions(workers=2, threads=1)
    sweep(SweepRecipe(**json.loads(sys.argv[1])), sys.argv[2], probe=False, options=options)
"""


@pytest.mark.slow
def test_an_interruption_reaches_the_pass_of_a_worker(folder: Path, tmp_path: Path) -> None:
    """Ctrl-C at a sweep with two workers ends them; the pass of one of them is not taken for killed."""
    training = {**TRAINING, "checkpoint_every": 10**6, "epochs": 5000}
    recipe = small_recipe(folder, together=4, training=training, **TRIALS).to_dict()
    (tmp_path / "sweep.py").write_text(SWEEP)

    def starts() -> list[int]:
        return [Pass(home).starts for home in SweepDirectory(tmp_path / "out").groups()]

    with subprocess.Popen([sys.executable, tmp_path / "sweep.py", json.dumps(recipe), tmp_path / "out"]) as process:
        while starts() != [1]:
            assert process.poll() is None
            time.sleep(0.1)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(timeout=120) != 0
        finally:
            process.kill()
    assert starts() == [0]
