"""How much each method depends on its learning rate: accuracy on validation over the grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trimtab.figures import TEXT, logarithmic, series
from trimtab.reports.document import Paragraph, Part, Picture
from trimtab.reports.outcomes import Outcomes
from trimtab.reports.panels import file_name, panels
from trimtab.reports.paper_tables import task_name, tasks_in_order
from trimtab.results import CellRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Sensitivity to the learning rate"
ORDER = 50


def parts(outcomes: Outcomes) -> list[Part]:
    """The rates that diverged; a figure for each model, a panel for each task and a line for each method in it."""
    pictures = [picture for model in outcomes.models if (picture := _picture(outcomes, model)) is not None]
    diverged = [_rates_that_diverged(outcomes, cell) for cell in outcomes.cells if cell.diverged]
    return [*([Paragraph(f"Training diverged: {'; '.join(diverged)}.")] if diverged else []), *pictures]


def _rates_that_diverged(outcomes: Outcomes, cell: CellRecord) -> str:
    """Of a cell, also of one that has too few scores for a line."""
    rates = ", ".join(f"{rate:g}" for rate in cell.diverged)
    model = f", {outcomes.short(cell.model)}" if len(outcomes.models) > 1 else ""
    return f"{cell.method} on {task_name(outcomes, cell.task)}{model} at {rates}"


def spread(cell: CellRecord) -> float:
    """The best share on validation less the worst, over the rates that have been scored."""
    shares = [correct / n for _, correct, n in cell.validation]
    return max(shares) - min(shares)


def _picture(outcomes: Outcomes, model: str) -> Picture | None:
    tried = {
        task: cells
        for task in tasks_in_order(outcomes, model)
        if (cells := [cell for cell in outcomes.of(model, task) if len(cell.validation) > 1])
    }
    if not tried:
        return None
    titles = [task_name(outcomes, task) for task in tried]
    methods = {cell.method for cells in tried.values() for cell in cells}
    with panels(file_name("learning-rates", outcomes.short(model)), titles, len(methods)) as (drawing, axes):
        for each, cells in zip(axes, tried.values(), strict=True):
            _panel(each, cells, outcomes)
    words = "; ".join(
        f"{title}: " + ", ".join(f"{cell.method} {100 * spread(cell):.1f}" for cell in cells)
        for title, cells in zip(titles, tried.values(), strict=True)
    )
    alt = f"Accuracy on validation over the learning rates. Points between the best and the worst rate: {words}."
    return Picture(outcomes.short(model), drawing, alt, "A ring marks the chosen rate.")


def _panel(axes: Axes, cells: list[CellRecord], outcomes: Outcomes) -> None:
    for cell in cells:
        rates = [rate for rate, _, _ in sorted(cell.validation)]
        shares = {rate: 100 * correct / n for rate, correct, n in cell.validation}
        style = series(outcomes.methods.index(cell.method))
        axes.plot(rates, [shares[rate] for rate in rates], label=cell.method, **style)
        if cell.learning_rate in shares:
            rate = cell.learning_rate
            axes.plot([rate], [shares[rate]], "o", markersize=12, fillstyle="none", color=TEXT, markeredgewidth=0.9)
    logarithmic(axes)
    axes.set_xlabel("learning rate")
    axes.set_ylabel("accuracy on validation, %")
