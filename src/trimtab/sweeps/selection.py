"""Which rate a cell takes, and which runs come next: functions of the records alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from trimtab.results import FailedRun, RunRecord
from trimtab.sweeps.configuration import Configuration
from trimtab.sweeps.grid import Cell

DIVERGED = FloatingPointError.__name__
"""The error of a training that is not finite: a result about its rate, where other errors are accidents."""


class Outcomes(Protocol):
    """What is known of runs."""

    def record(self, run: Configuration) -> RunRecord | None:
        """The record of a finished run."""

    def failure(self, run: Configuration) -> FailedRun | None:
        """The record of a failed run."""


@dataclass(frozen=True)
class Choice:
    """A rate with its score on validation: `correct` of `n`, over the choosing seeds together."""

    rate: float
    correct: int
    n: int

    @property
    def accuracy(self) -> float:
        """The share of right answers."""
        return self.correct / self.n


def scored_rates(cell: Cell, outcomes: Outcomes) -> list[Choice]:
    """The rates whose trials have all finished, the best one first; of equal ones the smaller rate first."""
    found = []
    for rate in cell.rates:
        records = [outcomes.record(run) for run in cell.trials if run.learning_rate == rate]
        finished = [record for record in records if record is not None]
        if finished and len(finished) == len(records):
            found.append(Choice(rate, sum(each.correct for each in finished), sum(each.n for each in finished)))
    return sorted(found, key=lambda choice: (-choice.accuracy, choice.rate))


def chosen_rate(cell: Cell, outcomes: Outcomes) -> float | None:
    """The rate with the best accuracy on validation; None while trials are missing, or when none can be chosen.

    A rate at which a training diverged is out. A trial that failed in another way leaves the choice open: what it
    would have scored is not known.
    """
    if len(cell.rates) == 1:
        return cell.rates[0]
    for run in cell.trials:
        failure = outcomes.failure(run)
        if outcomes.record(run) is None and (failure is None or failure.error != DIVERGED):
            return None
    best = scored_rates(cell, outcomes)
    return best[0].rate if best else None


def open_runs(cell: Cell, outcomes: Outcomes) -> list[Configuration]:
    """The runs that can be started: the trials that are neither finished nor failed, then the chosen rate's finals."""
    trials = [run for run in cell.trials if not settled(run, outcomes)]
    rate = None if trials else chosen_rate(cell, outcomes)
    return trials if rate is None else [run for run in cell.finals[rate] if not settled(run, outcomes)]


def needed_runs(cell: Cell, outcomes: Outcomes) -> list[Configuration]:
    """The runs that a cell needs, finished or not; while the rate is open, the finals at one of them for all."""
    rate = chosen_rate(cell, outcomes)
    finals = cell.finals[cell.rates[0] if rate is None else rate]
    return list({run.hash: run for run in (*cell.trials, *finals)}.values())


def expected_runs(cell: Cell, outcomes: Outcomes) -> list[Configuration]:
    """The runs that a cell has or can still come to: those it needs, but for finals of a rate that nobody can choose.

    When all rates have diverged, or a trial has failed by accident, the trials are all there is.
    """
    trials_ended = bool(cell.trials) and all(settled(run, outcomes) for run in cell.trials)
    if trials_ended and chosen_rate(cell, outcomes) is None:
        return list(cell.trials)
    return needed_runs(cell, outcomes)


def weights_to_keep(cell: Cell, outcomes: Outcomes) -> set[str]:
    """The trainings (their hashes) whose weights a run that is still to come reads.

    While rates are being tried these are the trainings of the best rate so far, and of rates whose trials have not all
    finished: a rate that another has beaten is not chosen any more.
    """
    scored = [choice.rate for choice in scored_rates(cell, outcomes)]
    failures = [(run.learning_rate, outcomes.failure(run)) for run in cell.trials]
    diverged = {rate for rate, failure in failures if failure is not None and failure.error == DIVERGED}
    possible = [rate for rate in cell.rates if rate not in diverged and rate not in scored[1:]]
    return {run.training_hash for rate in possible for run in cell.finals[rate] if not settled(run, outcomes)}


def finished_finals(cell: Cell, outcomes: Outcomes) -> list[RunRecord]:
    """The records of the chosen rate's seeds, as far as there are any."""
    rate = chosen_rate(cell, outcomes)
    found = [] if rate is None else [outcomes.record(run) for run in cell.finals[rate]]
    return [record for record in found if record is not None]


def settled(run: Configuration, outcomes: Outcomes) -> bool:
    """Whether a run has finished or failed."""
    return outcomes.record(run) is not None or outcomes.failure(run) is not None
