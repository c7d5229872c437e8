"""Claims between processes, and the files that are made of others."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from sweeps.small_sweep import small_recipe
from trimtab.sweeps import Configuration, Grid, SweepDirectory, load_failures, load_results
from trimtab.sweeps.worker import write_failure

HOLD = """
import sys, filelock
lock = filelock.FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def run(folder: Path) -> Configuration:
    """Any run."""
    return Grid.of(small_recipe(folder)).cells[0].trials[0]


def test_a_claim_is_one_process_only_and_dies_with_it(tmp_path: Path, run: Configuration) -> None:
    """While another process lives the run is its own; when it is killed the run is free at once."""
    directory = SweepDirectory(tmp_path)
    with directory.claimed(run) as mine:
        assert mine
    lock = directory.home(run) / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with directory.claimed(run) as mine:
            assert not mine
        other.kill()
        other.wait()
    with directory.claimed(run) as mine:
        assert mine


def test_two_claims_in_one_process_exclude_each_other(tmp_path: Path, run: Configuration) -> None:
    """A run that this process works on is not taken a second time."""
    with SweepDirectory(tmp_path).claimed(run) as first, SweepDirectory(tmp_path).claimed(run) as second:
        assert (first, second) == (True, False)


def test_runs_of_one_training_share_a_claim(tmp_path: Path, folder: Path) -> None:
    """Trial and final read and write the same weights."""
    (cell, *_) = Grid.of(small_recipe(folder)).cells
    trial = cell.trials[0]
    final = cell.finals[trial.learning_rate][0]
    directory = SweepDirectory(tmp_path)
    with directory.claimed(trial), directory.claimed(final) as mine:
        assert not mine


def test_an_error_within_a_claim_frees_it(tmp_path: Path, run: Configuration) -> None:
    """The next one can go on."""
    directory = SweepDirectory(tmp_path)
    with pytest.raises(RuntimeError, match="broken"), directory.claimed(run):
        raise RuntimeError("broken")
    with FileLock(directory.home(run) / "lock").acquire(blocking=False):
        pass


def test_a_sweep_that_starts_at_the_same_moment_is_no_stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one puts its marker in place between the look for the marker and the look at the other files."""
    listed = Path.iterdir

    def meanwhile(path: Path) -> Iterator[Path]:
        SweepDirectory(tmp_path).path.joinpath("sweep.json").write_text("{}")
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", meanwhile)
    SweepDirectory(tmp_path).check()


def test_a_failed_run_leaves_no_checkpoints(tmp_path: Path, run: Configuration) -> None:
    """Nobody goes on from them: what diverged would diverge again, and a retry begins anew. Losses stay."""
    directory = SweepDirectory(tmp_path)
    training = directory.training(run)
    for checkpoints in (training.checkpoints, training.selection.checkpoints):
        (checkpoints / "checkpoint-4").mkdir(parents=True)
    training.metrics_file.write_text("")
    write_failure(run, directory, FloatingPointError("not finite"), "trace", "cpu")
    assert directory.failure(run) is not None
    assert [path.name for path in training.path.iterdir() if path.is_file()] == ["metrics.jsonl"]
    assert not list(directory.home(run).rglob("*checkpoint*"))


@pytest.mark.parametrize("read", [load_results, load_failures])
def test_what_is_no_sweep_is_said_so(tmp_path: Path, read: object) -> None:
    """The missing file is named."""
    with pytest.raises(FileNotFoundError, match="is not the directory of a sweep"):
        read(tmp_path)  # type: ignore[operator]
