"""The lines of results.jsonl, cells.jsonl and failures.jsonl."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from trimtab.results.accuracy import Accuracy
from trimtab.results.environment import Environment
from trimtab.results.record import Record


@dataclass(frozen=True)
class RunRecord(Record):
    """One run of a sweep: what was trained, and its score on one split. A line of results.jsonl.

    Attributes:
        run: the hash of the configuration; names the run.
        training: the hash of what was trained; runs that score the same training share it.
        model: as in the recipe.
        task: as in the recipe.
        method: the method's label in the recipe.
        family: what kind of method: steering, lora, joint or full.
        learning_rate: AdamW's, at its peak.
        seed: of the adapter's start and of the order of the batches.
        split: which examples were answered.
        accuracy: share of right answers, 0 to 1.
        standard_error: sqrt(p (1 - p) / n), on the same scale.
        correct: how many were right,
        n: of how many.
        unparsed: answers in which no answer was found.
        trainable_parameters: what the method trains.
        model_parameters: of the base.
        steps: optimiser steps.
        examples: training examples.
        tokens: real tokens of all training batches.
        loss: mean over the last logging interval, nats a supervised token.
        loss_curve: [step, loss] in at most 20 points, each the mean over equally many logged steps.
        training_seconds: wall time of all processes that trained it.
        evaluation_seconds: wall time of the answers.
        generated_tokens: tokens of the answers.
        peak_memory: bytes while it was trained (of the GPU, or of the whole process on a CPU).
        dtype: what the base computed in.
        examples_file: JSONL of every answer, relative to the directory of results.jsonl.
        finished: when, ISO 8601 in UTC.
        configuration: all that the numbers depend on.
        environment: versions, machine and code of the process that scored it.
        together: how many runs shared the pass that trained it, 1 alone; of several `training_seconds` is an equal
            share, and `peak_memory` that of the whole pass. None: an earlier version wrote the record.
        split_note: where the task's splits come from; None: likewise.
        right: a character an example, in their order: 1 answered rightly, 0 not; None: likewise.
    """

    run: str
    training: str
    model: str
    task: str
    method: str
    family: str
    learning_rate: float
    seed: int
    split: str
    accuracy: float
    standard_error: float
    correct: int
    n: int
    unparsed: int
    trainable_parameters: int
    model_parameters: int
    steps: int
    examples: int
    tokens: int
    loss: float
    loss_curve: list[list[float]]
    training_seconds: float
    evaluation_seconds: float
    generated_tokens: int
    peak_memory: int
    dtype: str
    examples_file: str
    finished: str
    configuration: dict[str, Any]
    environment: Environment
    together: int | None = None
    split_note: str | None = None
    right: str | None = None

    @property
    def score(self) -> Accuracy:
        """The accuracy, which prints itself with its error and n."""
        return Accuracy(self.correct, self.n)


@dataclass(frozen=True)
class CellRecord(Record):
    """One model, task and method of a sweep: its chosen rate, and its score over the seeds. A line of cells.jsonl.

    Two recipes in one directory may have the same three and other settings: then each has a line.

    Attributes:
        model: as in the recipe.
        task: as in the recipe.
        method: the method's label in the recipe.
        family: what kind of method: steering, lora, joint or full.
        split: which examples the seeds are scored on.
        learning_rates: the grid.
        validation: [rate, right answers, of how many] of every rate whose trials have finished; the choosing seeds
            together.
        diverged: the rates at which a training diverged.
        learning_rate: the chosen one; None while the choice is open.
        seeds: those that are wanted at the chosen rate.
        finished_seeds: those that have been scored.
        accuracies: of each of these, in the same order; shares from 0 to 1.
        accuracy: their mean.
        standard_deviation: over the seeds, n - 1 in the denominator; None with fewer than two.
        standard_error: sqrt(p (1 - p) / n) of the mean p: every seed answers the same n examples.
        n: how many examples a seed answers.
        trainable_parameters: what the method trains; None before a run has finished.
        model_parameters: of the base; None before a run has finished.
        trials: the hashes of the finished runs that choose the rate.
        runs: the hashes of the runs behind `accuracies`.
        missing: the runs that the cell lacks, each with learning_rate (None: not chosen yet), seed, split and error
            (None: not run yet).
        settings: what its runs have in common: the task's options, the method without its rate, training without its
            seed, and how many examples are scored. None: an earlier version wrote the line.
    """

    model: str
    task: str
    method: str
    family: str
    split: str
    learning_rates: list[float]
    validation: list[list[float]]
    diverged: list[float]
    learning_rate: float | None
    seeds: list[int]
    finished_seeds: list[int]
    accuracies: list[float]
    accuracy: float | None
    standard_deviation: float | None
    standard_error: float | None
    n: int | None
    trainable_parameters: int | None
    model_parameters: int | None
    trials: list[str]
    runs: list[str]
    missing: list[dict[str, Any]]
    settings: dict[str, Any] | None = None

    @property
    def place(self) -> tuple[str, str, str, str, str]:
        """Model, task, method, split and settings (as JSON): the name of the cell."""
        settings = "" if self.settings is None else json.dumps(self.settings, sort_keys=True)
        return self.model, self.task, self.method, self.split, settings


@dataclass(frozen=True)
class FailedRun(Record):
    """A run of a sweep that ended with an error. A line of failures.jsonl.

    The first fields are those of `RunRecord`; `error` is the error's type, `traceback_file` is relative to the
    directory of failures.jsonl.
    """

    run: str
    training: str
    model: str
    task: str
    method: str
    learning_rate: float
    seed: int
    split: str
    error: str
    message: str
    traceback_file: str
    finished: str
    configuration: dict[str, Any]
    environment: Environment
