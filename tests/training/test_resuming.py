"""An interrupted training run goes on where it stopped."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from small_runs import StopAfter, run, tensors
from training.runs_together import METHODS, together
from trimtab.training import RunDirectory, TrainingSettings, load_run
from trimtab.training import run as run_module
from trimtab.training import together as together_module
from trimtab.training import trainer as trainer_module


@pytest.mark.parametrize("method", ["post-block", "lora", "sft"])
def test_resumed_run_ends_with_the_same_bits(tmp_path: Path, method: str) -> None:
    """Interrupted after 5 of 6 steps (checkpoints at 2 and 4, the second epoch at 3) and started again."""
    settings = TrainingSettings(batch_size=8, epochs=2, seed=1, checkpoint_every=2)
    straight = run(tmp_path / "straight", method, settings=settings)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", method, settings=settings, callbacks=[StopAfter(5)])
    assert not RunDirectory(tmp_path / "broken").finished
    resumed = run(tmp_path / "broken", method, settings=settings)
    assert resumed.finished
    for name, value in tensors(straight).items():
        assert torch.equal(tensors(resumed)[name], value), name
    assert resumed.metrics() == straight.metrics()
    assert resumed.result().tokens == straight.result().tokens


def test_a_checkpoint_that_was_cut_off_is_not_used(tmp_path: Path) -> None:
    """A checkpoint without its last file is passed over for an older one."""
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", settings=TrainingSettings(checkpoint_every=1), callbacks=[StopAfter(2)])
    broken = tmp_path / "run" / "checkpoints" / "checkpoint-2"
    shutil.copytree(tmp_path / "run" / "checkpoints" / "checkpoint-1", broken)
    (broken / "trainer_state.json").unlink()
    last = RunDirectory(tmp_path / "run").last_checkpoint()
    assert last is not None
    assert last.name == "checkpoint-1"


def test_loading_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    """It has a recipe, but no weights."""
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", callbacks=[StopAfter(1)])
    with pytest.raises(FileNotFoundError, match="has not finished"):
        load_run(tmp_path / "run")
    with pytest.raises(FileNotFoundError, match="not a run directory"):
        load_run(tmp_path)


class StepsDone(TrainerCallback):
    """Counts the optimiser steps of this process."""

    count = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """One more."""
        self.count += 1


def test_a_run_goes_on_when_only_its_checkpoints_are_to_come_more_often(tmp_path: Path) -> None:
    """How often they are written is no part of what is computed: from step 4 of 6, with the same numbers."""
    settings, counted = TrainingSettings(batch_size=8, epochs=2, seed=1, checkpoint_every=2), StepsDone()
    straight = run(tmp_path / "straight", settings=settings)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", settings=settings, callbacks=[StopAfter(5)])
    resumed = run(tmp_path / "broken", settings=replace(settings, checkpoint_every=1), callbacks=[counted])
    assert counted.count == 2
    assert resumed.metrics() == straight.metrics()
    with pytest.raises(FileExistsError, match="finished"):
        run(tmp_path / "broken", settings=settings)


def test_a_run_whose_result_is_empty_has_not_finished(tmp_path: Path) -> None:
    """A power cut may leave such a file; the run is done again, with the same numbers."""
    finished = run(tmp_path / "run")
    before = tensors(finished)
    finished.result_file.write_text("")
    assert not finished.finished
    again = run(tmp_path / "run")
    assert again.result().steps == 3
    assert all(torch.equal(tensors(again)[name], value) for name, value in before.items())


class Clock(TrainerCallback):
    """A clock that only goes on while steps are taken, ten seconds each."""

    now = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ten seconds later."""
        self.now += 10.0


@pytest.mark.parametrize("alone", [True, False])
def test_the_time_of_an_interrupted_run_is_that_of_all_its_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    """Four steps of the first process are kept, two are of the second: 60 seconds; of two runs in a pass, 30 each."""
    clock = Clock()
    for module in (run_module, together_module, trainer_module):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    settings = TrainingSettings(batch_size=8, epochs=2, seed=1, checkpoint_every=2)

    def start(*callbacks: TrainerCallback) -> None:
        if alone:
            run(tmp_path / "0", settings=settings, callbacks=[clock, *callbacks])
        else:
            together(tmp_path, METHODS[:2], settings=settings, callbacks=[clock, *callbacks])

    with pytest.raises(KeyboardInterrupt):
        start(StopAfter(5))
    start()
    assert RunDirectory(tmp_path / "0").result().seconds == (60.0 if alone else 30.0)


@pytest.mark.parametrize("log_every", [3, 4])
def test_a_resumed_run_logs_means_over_whole_intervals(tmp_path: Path, log_every: int) -> None:
    """The checkpoint at step 4 lies inside an interval, or at its end: the lines are those of a straight run."""
    settings = TrainingSettings(batch_size=4, epochs=2, seed=1, checkpoint_every=2, log_every=log_every)
    straight = run(tmp_path / "straight", settings=settings)
    assert [line["step"] for line in straight.metrics()] == list(range(log_every, 13, log_every))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", settings=settings, callbacks=[StopAfter(5)])
    assert run(tmp_path / "broken", settings=settings).metrics() == straight.metrics()
