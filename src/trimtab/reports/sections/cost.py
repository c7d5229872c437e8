"""What each method costs: time and memory of training, and time of answering."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.figures import TEXT, figure, series
from trimtab.reports.document import NOTHING, Part, Picture, Row, Table
from trimtab.reports.outcomes import Outcomes
from trimtab.reports.panels import file_name
from trimtab.results import RunRecord

TITLE = "Cost"
ORDER = 70


@dataclass(frozen=True)
class Cost:
    """The costs of a method's runs on one model.

    Attributes:
        training: of the trainings that had a pass over the base to themselves; None: there is none.
        per_answer: seconds.
        alone: how many trainings had a pass to themselves, as far as the records say.
        shared: how many were trained together with others. Time and memory of their pass are not the method's.
    """

    training: Training | None
    per_answer: float
    alone: int
    shared: int

    @classmethod
    def of(cls, runs: Sequence[RunRecord]) -> Cost:
        """Medians over the runs, each training counted once, and the largest memory."""
        trained = list({run.training: run for run in runs}.values())
        alone = [run for run in trained if run.together in (None, 1)]
        return cls(
            Training.of(alone) if alone else None,
            statistics.median(run.evaluation_seconds / run.n for run in runs),
            len(alone),
            len(trained) - len(alone),
        )


@dataclass(frozen=True)
class Training:
    """Seconds of 1,000 trained tokens and of a run, medians, and the largest peak memory in bytes."""

    per_thousand_tokens: float
    per_run: float
    peak_memory: int

    @classmethod
    def of(cls, trained: Sequence[RunRecord]) -> Training:
        """Over trainings that each had a pass to themselves."""
        return cls(
            statistics.median(1000 * run.training_seconds / run.tokens for run in trained),
            statistics.median(run.training_seconds for run in trained),
            max(run.peak_memory for run in trained),
        )

    @property
    def texts(self) -> tuple[str, str, str]:
        """The three as numbers of a table; memory in GB."""
        run = f"{self.per_run:,.0f}" if self.per_run >= 10 else f"{self.per_run:.2g}"
        return f"{self.per_thousand_tokens:.3g}", run, f"{self.peak_memory / 1e9:.2f}"


def parts(outcomes: Outcomes) -> list[Part]:
    """A table and a figure for each model."""
    found: list[Part] = []
    for model in outcomes.models:
        costs = _costs(outcomes, model)
        if costs:
            trainings = {method: cost.training for method, cost in costs.items() if cost.training is not None}
            found += [_table(outcomes, model, costs), *([_picture(outcomes, model, trainings)] if trainings else [])]
    return found


def _costs(outcomes: Outcomes, model: str) -> dict[str, Cost]:
    found = {}
    for method in outcomes.methods:
        cells = [cell for cell in outcomes.of(model) if cell.method == method]
        runs = [run for cell in cells for run in outcomes.all_runs(cell) if run.tokens]
        if runs:
            found[method] = Cost.of(runs)
    return found


def _table(outcomes: Outcomes, model: str, costs: dict[str, Cost]) -> Table:
    columns = (
        "method",
        "s / 1,000 tokens",
        "s / training",
        "peak memory GB",
        "ms / answer",
        "trainings",
        "in shared passes",
    )
    rows = [
        Row(
            (
                method,
                *((NOTHING,) * 3 if cost.training is None else cost.training.texts),
                f"{1000 * cost.per_answer:.3g}",
                f"{cost.alone:,}",
                f"{cost.shared:,}",
            )
        )
        for method, cost in costs.items()
    ]
    runs = [run for cell in outcomes.of(model) for run in outcomes.all_runs(cell)]
    devices = sorted({run.environment.device for run in runs})
    note = (
        f"Medians over the trainings of all tasks and rates, on {' and '.join(devices)}; peak memory "
        "is the largest, of the GPU, or of the whole process on a CPU."
    )
    if any(cost.shared for cost in costs.values()):
        note += (
            " Runs that were trained together in one pass are left out of time and memory, which are those of the pass."
        )
    if any(run.together is None for run in runs):
        note += (
            " Some records are of an earlier version, which did not note whether a pass was shared: they count as "
            "trained alone, with an equal share of the time and the memory of the whole pass if they were not."
        )
    return Table(outcomes.short(model), columns, rows, note=note)


def _picture(outcomes: Outcomes, model: str, costs: dict[str, Training]) -> Picture:
    name = outcomes.short(model)
    with figure(file_name("cost", name), 10.2, 0.9 + 0.3 * len(costs), font_size=9.5) as drawing:
        time, memory = drawing.subplots(1, 2, sharey=True)
        for row, (method, cost) in enumerate(costs.items()):
            style = series(outcomes.methods.index(method))
            for axes, value in ((time, cost.per_thousand_tokens), (memory, cost.peak_memory / 1e9)):
                axes.plot([0, value], [row, row], color=style["color"], linewidth=1.2)
                axes.plot([value], [row], color=style["color"], marker=style["marker"], markersize=7)
        time.set_yticks(range(len(costs)), list(costs))
        time.set_ylim(len(costs) - 0.5, -0.5)
        for axes, unit in ((time, "seconds for 1,000 tokens of training"), (memory, "peak memory of training, GB")):
            axes.set_xlim(left=0)
            axes.set_xlabel(unit)
            axes.grid(axis="x")
            axes.tick_params(axis="y", length=0, labelcolor=TEXT)
    words = "; ".join(
        f"{method} {cost.per_thousand_tokens:.3g} s, {cost.peak_memory / 1e9:.2f} GB" for method, cost in costs.items()
    )
    return Picture(name, drawing, f"Seconds for 1,000 tokens of training, and peak memory: {words}.")
