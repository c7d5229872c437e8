"""Table 4 of the paper: weights and activations together."""

from __future__ import annotations

from trimtab.reports.document import Paragraph, Part, Row, Table
from trimtab.reports.outcomes import Outcomes
from trimtab.reports.paper import METHODS, TASKS, printed
from trimtab.reports.paper_tables import (
    EXPLANATION,
    accuracy_text,
    delta_range,
    find,
    model_in,
    parameters,
    reference_text,
    score,
    sizes_note,
    task_name,
    tasks_in_order,
)

TITLE = "Table 4: joint adaptation"
ORDER = 30

_NAMES = METHODS[4]
_JOINT = ("Joint", "Joint-Orth")
TASKS_OF_4 = ("GSM8K", "BoolQ", "WinoGrande")
"""The tasks that the paper has here, in its order."""


def parts(outcomes: Outcomes) -> list[Part]:
    """A table for each model that has a joint method: a row a task, a column a method, as the paper has it."""
    found: list[Part] = []
    for model in outcomes.models:
        tasks = tasks_in_order(outcomes, model, TASKS_OF_4)
        places = [(task, variant) for task in tasks for variant in outcomes.variants_of(model, task)]
        cells = {(place, name): find(outcomes, 4, name, model, *place) for place in places for name in _NAMES}
        if not any(cells[place, name] for place in places for name in _JOINT):
            continue
        rows = [Row(("params (%)", *(parameters([cells[place, name] for place in places]) for name in _NAMES)))]
        for task in tasks:
            for place in (place for place in places if place[0] == task):
                title = task_name(outcomes, task) + (f" [{place[1]}]" if place[1] else "")
                rows.append(Row((title, *(score(outcomes, cells[place, name]) for name in _NAMES))))
            if TASKS.get(task) in TASKS_OF_4:
                rows.append(_paper(model, task))
        note = f"{sizes_note(outcomes, model, tasks)} {reference_text(4, model)}"
        found.append(Table(outcomes.short(model), ("task", *_NAMES), rows, note=note.strip()))
    return [Paragraph(EXPLANATION), *found] if found else []


def _paper(model: str, task: str) -> Row:
    mine, of = model_in(4, model), TASKS[task]
    if mine is None:
        return Row(("the paper, other models", *(delta_range(4, name, of) for name in _NAMES)), reference=True)
    return Row(("the paper", *(accuracy_text(printed(4).get((mine, of, name))) for name in _NAMES)), reference=True)
