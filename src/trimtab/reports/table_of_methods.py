"""The layout of the paper's tables 1 and 2: a row a method, a column a task, the mean difference to SFT at the end."""

from __future__ import annotations

from trimtab.reports.document import Paragraph, Part, Row, Table
from trimtab.reports.outcomes import Outcomes
from trimtab.reports.paper import METHODS, SFT
from trimtab.reports.paper_tables import (
    EXPLANATION,
    MEANS,
    find,
    model_in,
    others,
    our_row,
    paper_row,
    reference_text,
    sizes_note,
    task_name,
    tasks_in_order,
)


def table_of_methods(outcomes: Outcomes, table: int, *, with_others: bool) -> list[Part]:
    """Table `table` for each model that has one of its methods.

    Args:
        outcomes: the results.
        table: 1 or 2.
        with_others: put the methods that are in none of the paper's tables behind the others.
    """
    found: list[Part] = []
    for model in outcomes.models:
        rows = _paper_methods(outcomes, table, model)
        if with_others:
            rows += _other_methods(outcomes, model)
        if rows:
            tasks = tasks_in_order(outcomes, model)
            columns = ("method", "params (%)", *(task_name(outcomes, task) for task in tasks), "mean difference")
            note = f"{sizes_note(outcomes, model, tasks)} {reference_text(table, model)} {MEANS}"
            found.append(Table(outcomes.short(model), columns, rows, note=note.strip()))
    return [Paragraph(EXPLANATION), *found] if found else []


def _paper_methods(outcomes: Outcomes, table: int, model: str) -> list[Row]:
    tasks, rows = tasks_in_order(outcomes, model), []
    for name in METHODS[table]:
        found = [
            our_row(outcomes, name, [find(outcomes, table, name, model, task, variant) for task in tasks])
            for variant in outcomes.variants_of(model)
        ]
        ours = [row for row in found if row is not None]
        rows += ours
        if ours and (model_in(table, model) or name != SFT):  # its differences to itself say nothing
            rows.append(paper_row(table, name, model, tasks))
    return rows


def _other_methods(outcomes: Outcomes, model: str) -> list[Row]:
    tasks, rows = tasks_in_order(outcomes, model), []
    for label in others(outcomes, model):
        cells = {cell.task: cell for cell in outcomes.of(model) if cell.method == label}
        title = f"{label} (not in the paper's tables)"
        ours = our_row(outcomes, title, [cells.get(task) for task in tasks], with_label=False)
        if ours is not None:
            rows.append(ours)
    return rows
