"""Which rate is chosen and which runs come next, told from made-up records."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from trimtab.sweeps import Cell, Configuration, Grid, SweepRecipe
from trimtab.sweeps.selection import chosen_rate, expected_runs, needed_runs, open_runs, weights_to_keep

RATES = [1e-3, 2e-3, 4e-3]


class Made:
    """Outcomes that a test writes."""

    def __init__(self) -> None:
        self.correct: dict[str, int] = {}
        self.errors: dict[str, str] = {}

    def record(self, run: Configuration) -> Any:
        """10 examples were answered."""
        return SimpleNamespace(correct=self.correct[run.hash], n=10) if run.hash in self.correct else None

    def failure(self, run: Configuration) -> Any:
        """The error's type."""
        return SimpleNamespace(error=self.errors[run.hash]) if run.hash in self.errors else None


def cell(**changes: Any) -> Cell:
    """Three rates, three seeds."""
    given: dict[str, Any] = {"models": ["a"], "tasks": ["listops-small"], "methods": ["post-block"]}
    recipe = SweepRecipe(**{**given, "learning_rates": RATES, "seeds": [0, 1, 2], **changes})
    return Grid.of(recipe).cells[0]


def tried(given: Cell, *correct: int) -> Made:
    """Trials that have finished, in the order of the rates."""
    made = Made()
    made.correct = {run.hash: right for run, right in zip(given.trials, correct, strict=False)}
    return made


def test_the_best_rate_on_validation_is_chosen() -> None:
    """And only its seeds are then run, on test."""
    one = cell()
    made = tried(one, 3, 7, 5)
    assert chosen_rate(one, made) == 2e-3
    assert {(run.learning_rate, run.split, run.seed) for run in open_runs(one, made)} == {
        (2e-3, "test", seed) for seed in (0, 1, 2)
    }


def test_of_equal_rates_the_smaller_one_is_chosen() -> None:
    """Whatever their order in the recipe."""
    one = cell(learning_rates=[4e-3, 1e-3, 2e-3])
    assert chosen_rate(one, tried(one, 7, 3, 7)) == 2e-3


def test_choosing_seeds_count_together() -> None:
    """A rate that is best at one seed only loses to one that is better on the whole."""
    one = cell(learning_rates=[1e-3, 2e-3], selection_seeds=[0, 1])
    assert [(run.learning_rate, run.seed) for run in one.trials] == [(1e-3, 0), (1e-3, 1), (2e-3, 0), (2e-3, 1)]
    assert chosen_rate(one, tried(one, 9, 1, 6, 6)) == 2e-3


def test_nothing_is_scored_on_test_before_all_trials_have_ended() -> None:
    """One trial is missing, so only it can be started."""
    one = cell()
    made = tried(one, 3, 7)
    assert chosen_rate(one, made) is None
    assert open_runs(one, made) == [one.trials[2]]
    assert {run.split for run in open_runs(one, Made())} == {"validation"}


def test_a_rate_that_diverged_is_out() -> None:
    """Its loss was not finite: that is its result. When all diverge there is nothing to choose."""
    one = cell()
    made = tried(one, 3, 7)
    made.errors = {one.trials[2].hash: "FloatingPointError"}
    assert chosen_rate(one, made) == 2e-3
    made = Made()
    made.errors = {run.hash: "FloatingPointError" for run in one.trials}
    assert chosen_rate(one, made) is None
    assert open_runs(one, made) == []


@pytest.mark.parametrize("error", ["OutOfMemoryError", "OSError"])
def test_a_trial_that_failed_by_accident_leaves_the_choice_open(error: str) -> None:
    """What it would have scored is not known: no final is run until it is retried."""
    one = cell()
    made = tried(one, 3, 7)
    made.errors = {one.trials[2].hash: error}
    assert chosen_rate(one, made) is None
    assert open_runs(one, made) == []


@pytest.mark.parametrize("errors", [["FloatingPointError"] * 3, ["FloatingPointError", "OSError"]])
def test_nothing_is_expected_of_a_cell_whose_rate_cannot_be_chosen(errors: list[str]) -> None:
    """Every trial has ended, all of them diverged or one failed by accident: no final will ever be run."""
    one = cell()
    made = tried(one)
    assert len(expected_runs(one, made)) == one.size == 6
    made.errors = {run.hash: error for run, error in zip(one.trials, errors, strict=False)}
    made.correct = {run.hash: 5 for run in one.trials[len(errors) :]}
    assert expected_runs(one, made) == list(one.trials)


def test_one_rate_needs_no_trials() -> None:
    """Its seeds are run at once."""
    one = cell(learning_rates=[1e-3])
    assert one.trials == ()
    assert len(open_runs(one, Made())) == 3


def test_at_stage_validation_test_is_never_touched_and_trials_count_as_finals() -> None:
    """Of three seeds at the chosen rate one has been run already."""
    one = cell(stage="validation")
    made = tried(one, 3, 7, 5)
    assert [(run.learning_rate, run.seed, run.split) for run in open_runs(one, made)] == [
        (2e-3, 1, "validation"),
        (2e-3, 2, "validation"),
    ]
    assert {run.split for run in one.runs()} == {"validation"}
    assert len(needed_runs(one, made)) == one.size == 5


def test_weights_are_needed_while_their_rate_can_still_be_chosen() -> None:
    """The best so far and what has not been scored; in the end the chosen rate, until its seeds are scored."""
    one = cell()
    first = {rate: one.finals[rate][0].training_hash for rate in RATES}
    needed = weights_to_keep(one, tried(one, 3, 7))
    assert needed.isdisjoint({first[1e-3]})
    assert {first[2e-3], first[4e-3]} <= needed
    made = tried(one, 3, 7, 5)
    assert weights_to_keep(one, made) == {run.training_hash for run in one.finals[2e-3]}
    made.correct |= {run.hash: 5 for run in one.finals[2e-3]}
    assert weights_to_keep(one, made) == set()
