"""What runs cost: seconds of those that have finished, or of a probe, for those that are still to come."""

from __future__ import annotations

import logging
import math
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from trimtab.evaluation import evaluate
from trimtab.results import RunRecord
from trimtab.sweeps.configuration import Configuration
from trimtab.sweeps.directory import SweepDirectory
from trimtab.sweeps.grid import Cell, Grid
from trimtab.sweeps.run import BaseModels
from trimtab.sweeps.selection import expected_runs, settled
from trimtab.training import train

logger = logging.getLogger(__name__)

PROBE_STEPS = 4
PROBE_ANSWERS = 16

Kind = tuple[str, str, str]
"""Model, task and family of methods: runs of one kind cost about the same."""


@dataclass(frozen=True)
class Cost:
    """Seconds to train, and to score one example."""

    training: float
    example: float


@dataclass
class Costs:
    """The costs of each kind of run, by what has been seen of it."""

    probed: dict[Kind, Cost] = field(default_factory=dict)
    _examples: dict[str, int] = field(default_factory=dict)
    _training: dict[Kind, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    _example: dict[Kind, list[float]] = field(default_factory=lambda: defaultdict(list))

    def learn(self, record: RunRecord) -> None:
        """Count a finished run."""
        kind = (record.model, record.task, record.family)
        self._training[kind][record.training] = record.training_seconds
        self._example[kind].append(record.evaluation_seconds / record.n)

    def of(self, kind: Kind) -> Cost | None:
        """What is known of a kind: the mean over its finished runs, else the probe."""
        if kind not in self._training:
            return self.probed.get(kind)
        return Cost(statistics.fmean(self._training[kind].values()), statistics.fmean(self._example[kind]))

    def remaining(self, cell: Cell, directory: SweepDirectory) -> float | None:
        """Seconds that the cell still needs in one process; None: nothing is known of its kind."""
        todo = remaining_runs(cell, directory)
        cost = self.of((cell.model, cell.task, cell.family))
        if not todo:
            return 0.0
        if cost is None:
            return None
        trained = {run.training_hash for run in cell.runs() if directory.training(run).finished}
        seconds, seen = 0.0, set(trained)
        for run in todo:
            seconds += cost.example * self._examples_of(run)
            if run.training_hash not in seen:
                seconds += cost.training
                seen.add(run.training_hash)
        return seconds

    def _examples_of(self, run: Configuration) -> int:
        key = f"{run.task_name}/{run.split}/{run.examples}/{run.training.data_seed}"
        if key not in self._examples:
            self._examples[key] = len(run.task.load(run.split, limit=run.examples, seed=run.training.data_seed))
        return self._examples[key]


def remaining_runs(cell: Cell, directory: SweepDirectory) -> list[Configuration]:
    """The runs that a cell can come to and that have neither finished nor failed."""
    return [run for run in expected_runs(cell, directory) if not settled(run, directory)]


class _StepTimes(TrainerCallback):
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the time."""
        self.ends.append(time.perf_counter())


def probe(run: Configuration, bases: BaseModels) -> Cost:
    """The cost of runs like `run`, from its first steps and a few answers.

    The first batch is the longest one, and slow for being the first: it is not counted. The answers are the base's.
    """
    times = _StepTimes()
    settings = replace(run.training, max_steps=PROBE_STEPS, checkpoint_every=PROBE_STEPS + 1, report_to="none")
    full = run.method.family == "full"
    if full:
        bases.drop()  # its weights are changed, so it needs a model of its own: not two at once
    model, tokenizer = (bases.load if full else bases.get)(run.model, run.training)
    with tempfile.TemporaryDirectory() as folder:
        done = train(
            model,
            run.method,
            run.task,
            Path(folder) / "run",
            tokenizer=tokenizer,
            settings=settings,
            progress=False,
            callbacks=[times],
        )
        examples = done.result().examples
    steps = run.training.max_steps or math.ceil(run.training.epochs * math.ceil(examples / run.training.batch_size))
    gaps = [b - a for a, b in pairwise(times.ends)]
    scored = evaluate(
        model,
        tokenizer,
        run.task,
        split=run.split,
        limit=PROBE_ANSWERS,
        data_seed=run.training.data_seed,
        chat=run.training.chat,
        batch_tokens=run.batch_tokens,
        progress=False,
    )
    return Cost(steps * statistics.fmean(gaps or [0.0]), scored.seconds / scored.accuracy.n)


def probe_all(grid: Grid, directory: SweepDirectory, costs: Costs, bases: BaseModels) -> None:
    """Probe each kind of run that is still to come and of which nothing is known; say so if that fails."""
    for cell in grid.cells:
        kind = (cell.model, cell.task, cell.family)
        if costs.of(kind) is None and (todo := remaining_runs(cell, directory)):
            try:
                costs.probed[kind] = probe(todo[0], bases)
            except Exception as error:
                # A run may fail, and is recorded then; the others need no estimate of its kind to be run.
                bases.drop()
                said = f"{type(error).__name__}: {error}"
                logger.warning("No estimate of the time: the probe of %s failed. %s", todo[0].describe(), said)
