"""The training loss over the steps, at the chosen rate."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from trimtab.figures import series
from trimtab.reports.document import Part, Picture
from trimtab.reports.outcomes import Outcomes
from trimtab.reports.panels import file_name, panels
from trimtab.reports.paper_tables import task_name, tasks_in_order
from trimtab.results import RunRecord

TITLE = "Training loss"
ORDER = 60

Curve = tuple[list[float], list[float]]


def parts(outcomes: Outcomes) -> list[Part]:
    """A figure for each model, with a panel for each task and a line for each method."""
    return [picture for model in outcomes.models if (picture := _picture(outcomes, model)) is not None]


def mean_curve(runs: Sequence[RunRecord]) -> Curve | None:
    """Steps and the mean loss of the runs that were logged at the same steps as the first; None without a curve."""
    curves = [run.loss_curve for run in runs if run.loss_curve]
    if not curves:
        return None
    steps = [step for step, _ in curves[0]]
    same = [curve for curve in curves if [step for step, _ in curve] == steps]
    return steps, [statistics.fmean(loss for _, loss in points) for points in zip(*same, strict=True)]


def _picture(outcomes: Outcomes, model: str) -> Picture | None:
    curves: dict[str, dict[str, Curve]] = {}
    for task in tasks_in_order(outcomes, model):
        for cell in outcomes.of(model, task):
            if (curve := mean_curve(outcomes.finals(cell))) is not None:
                curves.setdefault(task, {})[cell.method] = curve
    if not curves:
        return None
    titles = [task_name(outcomes, task) for task in curves]
    methods = {method for lines in curves.values() for method in lines}
    with panels(file_name("loss", outcomes.short(model)), titles, len(methods)) as (drawing, axes):
        for each, lines in zip(axes, curves.values(), strict=True):
            for method, (steps, losses) in lines.items():
                index, every = outcomes.methods.index(method), max(1, len(steps) // 4)
                style = {**series(index), "linewidth": 1.4, "markersize": 4.5}
                # Each line has its markers at other steps, so that they do not hide each other.
                each.plot(steps, losses, label=method, markevery=(index % every, every), **style)
            each.set_ylim(bottom=0)
            each.set_xlabel("step")
            each.set_ylabel("loss, nats a token")
    ends = "; ".join(
        f"{title}: " + ", ".join(f"{method} {losses[-1]:.2f}" for method, (_, losses) in lines.items())
        for title, lines in zip(titles, curves.values(), strict=True)
    )
    note = "Means over the seeds at the chosen rate; a point is the mean over a twentieth of the steps."
    return Picture(outcomes.short(model), drawing, f"Training loss over the steps; it ends at: {ends}.", note)
