"""What a tracker hears of a run."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from small_runs import SETTINGS, StopAfter, run
from training.runs_together import METHODS, together
from trimtab.sweeps.entries import training_settings
from trimtab.training import RunDirectory, TrainingSettings

TRACKED = replace(SETTINGS, report_to="tensorboard")


class Heard(TrainerCallback):
    """A tracker that keeps what it is told."""

    losses: ClassVar[list[float]] = []
    names: ClassVar[set[str]] = set()

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep it."""
        if "loss" in kwargs["logs"]:
            self.losses.append(kwargs["logs"]["loss"])
            self.names.add(args.run_name)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> type[Heard]:
    """In the place of tensorboard's callback, as if that were installed."""
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "tensorboard", Heard)
    monkeypatch.setattr(integration_utils, "is_tensorboard_available", lambda: True)
    monkeypatch.setattr(Heard, "losses", [])
    monkeypatch.setattr(Heard, "names", set())
    return Heard


def test_a_tracker_hears_what_metrics_jsonl_holds(heard: type[Heard], tmp_path: Path) -> None:
    """Every logged loss, under a name that says which run it is."""
    found = run(tmp_path / "run", settings=TRACKED)
    assert heard.losses == [line["loss"] for line in found.metrics()]
    assert heard.names == {"post-block, rate 0.002, seed 1"}


def test_of_a_pass_over_several_runs_it_hears_the_mean(heard: type[Heard], tmp_path: Path) -> None:
    """One line a step for the pass."""
    together(tmp_path, METHODS[:2], settings=TRACKED)
    lines = zip(*(RunDirectory(tmp_path / name).metrics() for name in "01"), strict=True)
    assert heard.losses == pytest.approx([(one["loss"] + two["loss"]) / 2 for one, two in lines])
    assert heard.names == {"2 runs together"}


def test_nobody_hears_of_a_run_that_does_not_ask(heard: type[Heard], tmp_path: Path) -> None:
    """The default."""
    run(tmp_path / "run")
    assert heard.losses == []


def test_an_interrupted_run_goes_on_with_another_tracker(heard: type[Heard], tmp_path: Path) -> None:
    """It is no part of what is computed."""
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", settings=SETTINGS, callbacks=[StopAfter(2)])
    assert run(tmp_path / "run", settings=TRACKED).finished


def test_an_unknown_tracker_is_an_error_with_the_nearest() -> None:
    """As a setting and in a sweep's recipe, before anything is loaded."""
    with pytest.raises(ValueError, match=r"Unknown report_to 'tensorbord'\. Did you mean 'tensorboard'"):
        TrainingSettings(report_to="tensorbord")
    with pytest.raises(ValueError, match=r"training: Unknown report_to 'wandbb'\. Did you mean 'wandb'"):
        training_settings({"report_to": "wandbb"}, seed=0)


@pytest.mark.parametrize("alone", [True, False])
def test_a_tracker_that_is_not_installed_is_named_before_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    """And nothing is written."""
    monkeypatch.setattr(integration_utils, "is_tensorboard_available", lambda: False)
    start = partial(run, tmp_path / "run") if alone else partial(together, tmp_path, METHODS[:2])
    with pytest.raises(ModuleNotFoundError, match="report_to='tensorboard' needs a package that is not installed"):
        start(settings=TRACKED)
    assert list(tmp_path.iterdir()) == []
