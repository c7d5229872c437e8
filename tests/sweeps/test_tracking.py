"""Tracking: what a dashboard is told, once for each run."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from made_runs import made_run
from sweeps.small_sweep import small_recipe
from trimtab.sweeps import SweepDirectory, load_results, sweep
from trimtab.sweeps.tracking import Tracker

Logged = list[dict[str, Any]]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Logged:
    """What a trackio of the test's own has been told, run by run."""
    told: Logged = []
    trackio = SimpleNamespace(
        init=lambda project, name, config: told.append({"project": project, "config": config, "logged": []}),
        log=lambda values, step: told[-1]["logged"].append({"step": step, **values}),
        finish=lambda: None,
    )
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    return told


def test_each_finished_run_is_logged_once(folder: Path, tmp_path: Path, runs: Logged) -> None:
    """With its configuration, loss curve and score; a sweep that goes on logs only what is new."""
    recipe = small_recipe(folder, methods=["post-block"], seeds=[0])
    sweep(recipe, tmp_path / "out", probe=False, track="words")
    records = {record.run: record for record in load_results(tmp_path / "out")}
    assert [run["project"] for run in runs] == ["words"] * 3
    scores = sorted(run["logged"][-1]["accuracy"] for run in runs)
    assert scores == sorted(record.accuracy for record in records.values())
    assert [values["step"] for values in runs[0]["logged"]] == [1, 2, 3, 4, 5, 6, 6]
    assert [len(run["logged"]) for run in runs] == [7, 7, 7]  # six steps and the score
    sweep(small_recipe(folder, methods=["post-block"]), tmp_path / "out", probe=False, track="words")
    assert len(runs) == 4


def test_two_sweeps_share_a_list_and_each_project_has_its_own(tmp_path: Path, runs: Logged) -> None:
    """What another sweep has logged since this one began is not logged again, but in another project it is."""
    one, other = (Tracker("words", SweepDirectory(tmp_path)) for _ in range(2))
    for tracker in (one, other, Tracker("more words", SweepDirectory(tmp_path)), one):
        tracker.log(made_run())
    assert [run["project"] for run in runs] == ["words", "more words"]


def test_a_dashboard_that_fails_does_not_end_the_sweep(
    tmp_path: Path, runs: Logged, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning; what could not be logged is logged by the next sweep."""
    with monkeypatch.context() as broken:
        broken.setattr(sys.modules["trackio"], "log", lambda *_, **__: 1 / 0)
        tracker = Tracker("words", SweepDirectory(tmp_path))
        for seed in (0, 1):
            tracker.log(made_run(seed=seed, run=f"{seed}" * 16))
    assert [record.message for record in caplog.records if "tracking failed" in record.message] == [
        "The sweep goes on, but tracking failed. ZeroDivisionError: division by zero"
    ]
    runs.clear()
    again = Tracker("words", SweepDirectory(tmp_path))
    for seed in (0, 1):
        again.log(made_run(seed=seed, run=f"{seed}" * 16))
    assert [len(run["logged"]) > 0 for run in runs] == [True, True]


def test_without_trackio_nothing_is_started(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named."""
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(ModuleNotFoundError, match=r"trimtab\[track\]"):
        sweep(small_recipe(folder), tmp_path / "out", probe=False, track="words")
    assert not list(tmp_path.glob("out/runs/*"))
