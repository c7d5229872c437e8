"""Accuracy against the number of trained parameters, with the methods that no other one beats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trimtab.figures import MUTED, logarithmic, series
from trimtab.reports.document import Part, Picture, percent, significant
from trimtab.reports.outcomes import Outcomes
from trimtab.reports.panels import file_name, panels
from trimtab.reports.paper_tables import task_name, tasks_in_order
from trimtab.results import CellRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Accuracy against parameters"
ORDER = 40

_NOTE = (
    "Bars are the standard error of the accuracy, sqrt(p (1 - p) / n). The dotted line is the frontier: no method on "
    "it is beaten by one with as many or fewer parameters."
)


def parts(outcomes: Outcomes) -> list[Part]:
    """A figure for each model, with a panel for each task."""
    return [picture for model in outcomes.models if (picture := _picture(outcomes, model)) is not None]


def frontier(cells: Sequence[CellRecord]) -> list[CellRecord]:
    """The cells that no cell with as many or fewer parameters reaches, by rising parameters."""
    found: list[CellRecord] = []
    for cell in sorted(cells, key=lambda each: (each.trainable_parameters or 0, -(each.accuracy or 0.0))):
        if not found or (cell.accuracy or 0.0) > (found[-1].accuracy or 0.0):
            found.append(cell)
    return found


def _picture(outcomes: Outcomes, model: str) -> Picture | None:
    scored = {
        task: cells
        for task in tasks_in_order(outcomes, model)
        if (cells := [cell for cell in outcomes.of(model, task) if cell.accuracy is not None])
    }
    if not scored:
        return None
    titles = [task_name(outcomes, task) for task in scored]
    methods = {cell.method for cells in scored.values() for cell in cells}
    with panels(file_name("frontier", outcomes.short(model)), titles, len(methods)) as (drawing, axes):
        for each, cells in zip(axes, scored.values(), strict=True):
            _panel(each, cells, outcomes)
    words = "; ".join(
        f"{title}: " + ", ".join(map(_words, frontier(cells)))
        for title, cells in zip(titles, scored.values(), strict=True)
    )
    alt = f"Accuracy against the share of trained parameters. On the frontier, with parameters and accuracy: {words}."
    return Picture(outcomes.short(model), drawing, alt, _NOTE)


def _panel(axes: Axes, cells: Sequence[CellRecord], outcomes: Outcomes) -> None:
    edge = frontier(cells)
    axes.plot(
        [_share(cell) for cell in edge],
        [100 * (cell.accuracy or 0.0) for cell in edge],
        color=MUTED,
        linestyle=":",
        linewidth=1.2,
    )
    for cell in cells:
        axes.errorbar(
            _share(cell),
            100 * (cell.accuracy or 0.0),
            yerr=100 * (cell.standard_error or 0.0),
            label=cell.method,
            **{**series(outcomes.methods.index(cell.method)), "linestyle": "none"},
        )
    axes.margins(x=0.12, y=0.12)
    logarithmic(axes)
    axes.set_xlabel("trained parameters, % of the model's")
    axes.set_ylabel("accuracy, %")


def _share(cell: CellRecord) -> float:
    """Percent of the model's parameters."""
    return 100 * (cell.trainable_parameters or 0) / (cell.model_parameters or 1)


def _words(cell: CellRecord) -> str:
    return f"{cell.method} {significant(_share(cell) / 100)} % {percent(cell.accuracy)}"
