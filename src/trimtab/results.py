"""The record of a run: what was measured, on how many examples, with what code and on what machine.

A record is a frozen dataclass that goes to JSON and back. It carries the version of its schema, so that a
file of another version is refused instead of read wrongly.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import shlex
import subprocess
import sys
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from trimtab.files import write_text
from trimtab.registry import unknown

SCHEMA_VERSION = 1
COMMAND_VARIABLE = "TRIMTAB_COMMAND"
"""In the environment of a process that another one started elsewhere, the command of that one."""
_PACKAGES = ("trimtab", "torch", "transformers", "peft", "trl", "accelerate", "datasets")


@dataclass(frozen=True)
class Accuracy:
    """`correct` of `n` answers, with the standard error sqrt(p (1 - p) / n) of the share p."""

    correct: int
    n: int

    def __post_init__(self) -> None:
        """Refuse an accuracy over nothing and a count outside 0..n."""
        if self.n < 1 or not 0 <= self.correct <= self.n:
            raise ValueError(f"An accuracy needs 0 <= correct <= n and n >= 1, got {self.correct} of {self.n}.")

    @property
    def value(self) -> float:
        """The share of correct answers, 0 to 1."""
        return self.correct / self.n

    @property
    def standard_error(self) -> float:
        """sqrt(p (1 - p) / n), on the same scale as `value`."""
        return math.sqrt(self.value * (1 - self.value) / self.n)

    def __str__(self) -> str:
        """As in "46.0 ± 2.5 % (n = 400)": never without its n."""
        return f"{100 * self.value:.1f} ± {100 * self.standard_error:.1f} % (n = {self.n:,})"


@dataclass(frozen=True)
class Environment:
    """What produced a result: versions, machine, code and command.

    Paths in the command are relative to the working directory: a result does not tell how a disk is laid out.
    """

    versions: dict[str, str | None]
    python: str
    platform: str
    device: str
    git: str | None
    command: str

    @classmethod
    def collect(cls, device: object) -> Environment:
        """The environment of this process; `device` is where the model is ("cpu", a GPU's name, ...)."""
        return cls(
            versions={name: _version(name) for name in _PACKAGES},
            python=platform.python_version(),
            platform=platform.platform(),
            device=str(device),
            git=_git_state(Path(__file__)),
            command=user_command(),
        )

    def save(self, path: Path) -> None:
        """Write it to `path` as JSON."""
        write_text(path, json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n")


@dataclass(frozen=True)
class Record:
    """A result that can be written to a JSON file and read back."""

    def to_dict(self) -> dict[str, Any]:
        """Version of the schema, kind of record and every field, as plain values."""
        return {"schema_version": SCHEMA_VERSION, "kind": type(self).__name__, **asdict(self)}

    def save(self, path: Path) -> None:
        """Write this record to `path` as JSON."""
        write_text(path, json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a record that `save` wrote.

        Raises:
            ValueError: no JSON, another schema version, another kind of record, a missing or a surplus key.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(
                f"{path} holds no record: {error}. Delete it, and what it records is done again."
            ) from error
        return cls.from_dict(content, path)

    @classmethod
    def from_dict(cls, content: dict[str, Any], path: Path) -> Self:
        """The record that `to_dict` wrote; `path`, where it was read, is for messages.

        Raises:
            ValueError: as `load`.
        """
        content = dict(content)
        version, kind = content.pop("schema_version", None), content.pop("kind", None)
        if version != SCHEMA_VERSION:
            raise ValueError(f"{path} has schema version {version}, this trimtab reads version {SCHEMA_VERSION}.")
        if kind != cls.__name__:
            raise ValueError(f"{path} holds a record of kind {kind!r}, not {cls.__name__!r}.")
        names = {each.name for each in fields(cls)}
        if missing := names - content.keys():
            raise ValueError(f"{path} lacks {', '.join(sorted(missing))}.")
        for key in content.keys() - names:
            raise unknown(f"key in {path}", key, names)
        if "environment" in names:
            content["environment"] = Environment(**content["environment"])
        if isinstance(content.get("accuracy"), dict):  # of a RunRecord it is a number
            content["accuracy"] = Accuracy(**content["accuracy"])
        return cls(**content)


@dataclass(frozen=True)
class TrainingResult(Record):
    """How a training run ended.

    `loss` is the mean over the last logging interval, in nats a supervised token. `tokens` counts every real
    token of the batches, `peak_memory` is in bytes (of the GPU, or of the whole process on a CPU), `seconds`
    is the wall time of the last, possibly resumed, process.
    """

    model: str
    task: str
    method: str
    seed: int
    trainable_parameters: int
    steps: int
    examples: int
    tokens: int
    loss: float
    seconds: float
    peak_memory: int
    environment: Environment


@dataclass(frozen=True)
class EvaluationResult(Record):
    """The score of a model on a task's split; `records` names the JSONL of the examples, if written."""

    model: str
    task: str
    split: str
    accuracy: Accuracy
    unparsed: int
    seconds: float
    generated_tokens: int
    records: str | None
    environment: Environment
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """The task, the split and the accuracy with its error bar."""
        return f"{self.task} ({self.split}): {self.accuracy}"


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
        training_seconds: wall time of the last process that trained it.
        evaluation_seconds: wall time of the answers.
        generated_tokens: tokens of the answers.
        peak_memory: bytes while it was trained (of the GPU, or of the whole process on a CPU).
        dtype: what the base computed in.
        examples_file: JSONL of every answer, relative to the directory of results.jsonl.
        finished: when, ISO 8601 in UTC.
        configuration: all that the numbers depend on.
        environment: versions, machine and code of the process that scored it.
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

    @property
    def score(self) -> Accuracy:
        """The accuracy, which prints itself with its error and n."""
        return Accuracy(self.correct, self.n)


@dataclass(frozen=True)
class CellRecord(Record):
    """One model, task and method of a sweep: its chosen rate, and its score over the seeds. A line of cells.jsonl.

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

    @property
    def place(self) -> tuple[str, str, str, str]:
        """Model, task, method and split: the name of the cell."""
        return self.model, self.task, self.method, self.split


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


def user_command() -> str:
    """What the user typed: the line of this process, or of the one that has it work for itself (COMMAND_VARIABLE)."""
    own = shlex.join([Path(sys.argv[0]).name, *map(_without_absolute_path, sys.argv[1:])])
    return os.environ.get(COMMAND_VARIABLE) or own


def _without_absolute_path(argument: str) -> str:
    """`argument`, or --option=argument, with a path that is absolute made relative."""
    option, equals, value = argument.rpartition("=")
    return f"{option}{equals}{os.path.relpath(value)}" if os.path.isabs(value) else argument


def _version(package: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_state(source: Path) -> str | None:
    """The commit of the repository that tracks `source`, "-dirty" after local changes; None outside."""
    git = ["git", "-C", str(source.parent)]
    try:
        # An installed package may lie inside somebody else's repository: only a tracked file has a commit.
        subprocess.run([*git, "ls-files", "--error-unmatch", source.name], check=True, capture_output=True)  # noqa: S603
        describe = [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(describe, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
