"""How one training ended, and one evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trimtab.results.accuracy import Accuracy
from trimtab.results.environment import Environment
from trimtab.results.record import Record


@dataclass(frozen=True)
class TrainingResult(Record):
    """How a training run ended.

    `loss` is the mean over the last logging interval, in nats a supervised token. `tokens` counts every real
    token of the batches, `peak_memory` is in bytes (of the GPU, or of the whole process on a CPU), `seconds`
    is wall time: of an interrupted run that of all its processes, each up to the checkpoint that the next went on from.
    `together` says how many runs shared the pass over the base: 1 alone; None: not known. Of several each has an equal
    share of `seconds`, and the `peak_memory` of the whole pass.
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
    together: int | None = None


@dataclass(frozen=True)
class EvaluationResult(Record):
    """The score of a model on a task's split; `records` names the JSONL of the examples, if written.

    `split_note` says where the task's splits come from; None: an earlier version wrote the result.
    """

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
    split_note: str | None = None

    def __str__(self) -> str:
        """The task, the split and the accuracy with its error bar."""
        return f"{self.task} ({self.split}): {self.accuracy}"
