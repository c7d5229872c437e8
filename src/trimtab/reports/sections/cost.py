"""What each method costs: time and memory of training, and time of answering."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.figures import TEXT, figure, series
from trimtab.reports.document import Part, Picture, Row, Table
from trimtab.reports.outcomes import Outcomes
from trimtab.reports.panels import file_name
from trimtab.results import RunRecord

TITLE = "Cost"
ORDER = 70


@dataclass(frozen=True)
class Cost:
    """The costs of a method's runs on one model: seconds of 1,000 trained tokens, of a run, of an answer; bytes."""

    per_thousand_tokens: float
    per_run: float
    per_answer: float
    peak_memory: int
    runs: int

    @classmethod
    def of(cls, runs: Sequence[RunRecord]) -> Cost:
        """Medians over the runs, each training counted once, and the largest memory."""
        trained = list({run.training: run for run in runs}.values())
        return cls(
            statistics.median(1000 * run.training_seconds / run.tokens for run in trained),
            statistics.median(run.training_seconds for run in trained),
            statistics.median(run.evaluation_seconds / run.n for run in runs),
            max(run.peak_memory for run in trained),
            len(trained),
        )


def parts(outcomes: Outcomes) -> list[Part]:
    """A table and a figure for each model."""
    found: list[Part] = []
    for model in outcomes.models:
        costs = _costs(outcomes, model)
        if costs:
            found += [_table(outcomes, model, costs), _picture(outcomes, model, costs)]
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
    columns = ("method", "s / 1,000 tokens", "s / training", "peak memory GB", "ms / answer", "trainings")
    rows = [
        Row(
            (
                method,
                f"{cost.per_thousand_tokens:.3g}",
                f"{cost.per_run:,.0f}" if cost.per_run >= 10 else f"{cost.per_run:.2g}",
                f"{cost.peak_memory / 1e9:.2f}",
                f"{1000 * cost.per_answer:.3g}",
                f"{cost.runs:,}",
            )
        )
        for method, cost in costs.items()
    ]
    devices = sorted({run.environment.device for cell in outcomes.of(model) for run in outcomes.all_runs(cell)})
    note = (
        f"Medians over the trainings of all tasks and rates, on {' and '.join(devices)}; peak memory "
        "is the largest, of the GPU, or of the whole process on a CPU. A training that was interrupted counts the "
        "time of its last process only."
    )
    return Table(outcomes.short(model), columns, rows, note=note)


def _picture(outcomes: Outcomes, model: str, costs: dict[str, Cost]) -> Picture:
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
