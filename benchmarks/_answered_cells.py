"""The finished cells of a sweep with their answers, example by example, and how two of them differ."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.models import EMBEDDED_MODEL
from trimtab.results import CellRecord, RunRecord
from trimtab.sweeps import load_cells, load_results

_KEPT = (
    "task",
    "method",
    "trainable_parameters",
    "model_parameters",
    "validation",
    "diverged",
    "learning_rate",
    "seeds",
    "accuracies",
    "accuracy",
    "standard_error",
    "n",
)


@dataclass(frozen=True)
class Answered:
    """A cell at its chosen rate.

    Attributes:
        cell: its record.
        right: the share of the seeds that answered rightly, of each example.
    """

    cell: CellRecord
    right: list[float]

    @property
    def place(self) -> str:
        """The task, and the model where it is not the embedded one."""
        model = self.cell.model.rsplit("/", 1)[-1]
        return self.cell.task if model == EMBEDDED_MODEL else f"{self.cell.task}, {model}"

    def difference(self, other: Answered) -> tuple[float, float]:
        """The mean over the examples of `right` here and not there, and its standard error."""
        each = [mine - its for mine, its in zip(self.right, other.right, strict=True)]
        return statistics.fmean(each), statistics.stdev(each) / math.sqrt(len(each))

    def line(self, reference: Answered) -> dict[str, Any]:
        """What is committed of the cell, and its difference to another of the same examples."""
        difference, error = self.difference(reference)
        cell = self.cell.to_dict()
        return {**{key: cell[key] for key in _KEPT}, "minus_reference": difference, "minus_reference_error": error}


def points(ours: Answered, other: Answered) -> tuple[float, float]:
    """How many points `ours` is ahead, and the standard error that examples and seeds leave together."""
    if ours.cell.finished_seeds != other.cell.finished_seeds:
        raise SystemExit(f"{ours.cell.method} and {other.cell.method} on {ours.cell.task} have different seeds.")
    difference, of_examples = ours.difference(other)
    by_seed = [mine - its for mine, its in zip(ours.cell.accuracies, other.cell.accuracies, strict=True)]
    of_seeds = statistics.stdev(by_seed) / math.sqrt(len(by_seed)) if len(by_seed) > 1 else 0.0
    return 100 * difference, 100 * math.hypot(of_examples, of_seeds)


def answered_cells(sweep: Path, split: str) -> list[Answered]:
    """The cells that are scored on `split` and lack nothing, in the order of the sweep."""
    runs = {run.run: run for run in load_results(sweep)}
    found = [cell for cell in load_cells(sweep) if cell.split == split]
    return [_answered(cell, runs) for cell in found if not cell.missing and cell.learning_rate is not None]


def _answered(cell: CellRecord, runs: dict[str, RunRecord]) -> Answered:
    seeds = [runs[name].right for name in cell.runs]
    if None in seeds:
        raise SystemExit(
            f"An earlier version ran {cell.method} on {cell.task}: its records lack `right`. Run it again."
        )
    return Answered(cell, [statistics.fmean(map(int, answers)) for answers in zip(*filter(None, seeds), strict=True)])


def by_rate(line: dict[str, Any]) -> str:
    """The accuracy on validation at every rate, for a table."""
    scored = [f"{100 * correct / n:.1f} ({rate:g})" for rate, correct, n in line["validation"]]
    return ", ".join(scored + [f"diverged ({rate:g})" for rate in line["diverged"]])


def difference(line: dict[str, Any], reference: str) -> str:
    """The difference to the cell of the method `reference` with its standard error, for a table; empty for itself."""
    if line["method"] == reference:
        return ""
    return f"{100 * line['minus_reference']:+.1f} ± {100 * line['minus_reference_error']:.1f}"
