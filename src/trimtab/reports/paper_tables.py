"""The paper's tables with our numbers in them: which of our cells stands where, and the rows of both."""

from __future__ import annotations

import re
from collections.abc import Sequence

from trimtab.reports.document import NOTHING, Row, percent, signed, significant
from trimtab.reports.outcomes import Outcomes, validation_share
from trimtab.reports.paper import METHODS, SIZES, TASKS, Printed, is_method, paper_model, printed
from trimtab.results import CellRecord

EXPLANATION = (
    "Accuracy in percent: the mean over the seeds ± the standard deviation over them, and in brackets the difference "
    "to full fine-tuning (SFT) of the same model on the same task. The standard error and n of every number are in the "
    "section “Every cell”."
)
PAPER_ROWS = (
    "Rows “the paper” are its numbers for the same model and task. Its text does not say whether its models are the "
    "pretrained or the instruction-tuned ones."
)
OTHER_MODELS = (
    "This model is not in the table of the paper, so its accuracies cannot be compared with the paper's. Rows “the "
    "paper, other models” are a reference only: the smallest and the largest difference to SFT that it has for the "
    "method and the task, over its own models."
)
MEANS = (
    "Its mean differences are over the tasks of this table too; there is none where it lacks one of them. One of ours "
    "is marked where seeds are missing in a cell of its row, or in full fine-tuning beside it."
)


def find(outcomes: Outcomes, table: int, name: str, model: str, task: str, variant: str) -> CellRecord | None:
    """The cell that stands for the paper's method `name`; of several, the best on validation, as the paper chooses.

    Only of one variant of the settings: which of them is better is not for validation to choose.
    """
    candidates = []
    for cell in outcomes.of(model, task):
        configuration = outcomes.configuration(cell) if outcomes.variant(cell) == variant else None
        if configuration and any(is_method(cell, configuration, *ours) for ours in METHODS[table][name]):
            candidates.append(cell)
    return max(candidates, key=lambda cell: validation_share(cell) or 0.0, default=None)


def others(outcomes: Outcomes, model: str) -> list[str]:
    """The labels of the model's methods that stand in none of the tables."""
    known = set()
    for cell in outcomes.of(model):
        configuration = outcomes.configuration(cell)
        rows = [ours for table in METHODS.values() for candidates in table.values() for ours in candidates]
        if configuration is None or any(is_method(cell, configuration, *ours) for ours in rows):
            known.add(cell.method)
    return [label for label in outcomes.methods if label in {c.method for c in outcomes.of(model)} - known]


def tasks_in_order(outcomes: Outcomes, model: str, only: Sequence[str] = tuple(TASKS.values())) -> list[str]:
    """The model's tasks, in the order of the paper's columns `only`; those that it does not have behind them."""
    tasks = outcomes.tasks(model)
    inside = sorted((task for task in tasks if TASKS.get(task) in only), key=lambda task: only.index(TASKS[task]))
    return [*inside, *(task for task in tasks if task not in inside)]


def task_name(outcomes: Outcomes, task: str) -> str:
    """The paper's name of a task, or ours."""
    return TASKS.get(task, outcomes.short(task))


def score(outcomes: Outcomes, cell: CellRecord | None) -> str:
    """A number of ours, as in "52.3 ± 1.1 (−0.8)"; it says so when seeds are missing."""
    if cell is None or cell.accuracy is None:
        return NOTHING
    spread = "" if cell.standard_deviation is None else f" ± {percent(cell.standard_deviation)}"
    delta = outcomes.delta(cell)
    difference = "" if delta is None else f" ({signed(delta)})"
    seeds = "" if len(cell.accuracies) == len(cell.seeds) else f" [{len(cell.accuracies)} of {len(cell.seeds)} seeds]"
    return f"{percent(cell.accuracy)}{spread}{difference}{seeds}"


def our_row(
    outcomes: Outcomes, title: str, cells: Sequence[CellRecord | None], *, with_label: bool = True
) -> Row | None:
    """A row of the methods' table: parameters, a number a task, and the mean difference; None if it is empty.

    The mean says so when seeds are missing in what it is taken over.
    """
    scored = [cell for cell in cells if cell is not None and cell.accuracy is not None]
    if not any(cells):
        return None
    labels = list(dict.fromkeys(cell.method for cell in cells if cell is not None))
    name = f"{title}: {' / '.join(labels)}" if with_label else title
    deltas = [delta for cell in scored if (delta := outcomes.delta(cell)) is not None]
    texts = [score(outcomes, cell) for cell in cells]
    if len(labels) > 1:
        texts = [text if cell is None else f"{text} {cell.method}" for text, cell in zip(texts, cells, strict=True)]
    mean = NOTHING
    if deltas and len(deltas) == len(cells):
        counted = [each for cell in scored for each in (cell, outcomes.fine_tuned(cell)) if each is not None]
        mark = " [seeds missing]" if any(len(each.accuracies) < len(each.seeds) for each in counted) else ""
        mean = f"{signed(sum(deltas) / len(deltas))}{mark}"
    return Row((name, parameters(cells), *texts, mean))


def parameters(cells: Sequence[CellRecord | None]) -> str:
    """The share of parameters that a method trains, in percent."""
    shares = [
        cell.trainable_parameters / cell.model_parameters
        for cell in cells
        if cell and cell.trainable_parameters and cell.model_parameters
    ]
    return significant(shares[0]) if shares else NOTHING


def paper_row(table: int, name: str, model: str, tasks: Sequence[str]) -> Row:
    """What the paper prints for a method, for the same model, or the range over its own models."""
    mine = model_in(table, model)
    numbers = printed(table)
    if mine is not None:
        found = [numbers.get((mine, TASKS.get(task, ""), name)) for task in tasks]
        share = next((each.parameters for each in numbers_of(table, mine, name) if each.parameters), NOTHING)
        mean = delta_text(paper_mean(table, name, mine, tasks))
        return Row(("the paper", share, *(accuracy_text(each) for each in found), mean), reference=True)
    ranges = [delta_range(table, name, TASKS.get(task, "")) for task in tasks]
    means = [paper_mean(table, name, of, tasks) for of in dict.fromkeys(of for of, _, _ in numbers)]
    return Row(("the paper, other models", NOTHING, *ranges, range_text(means)), reference=True)


def paper_mean(table: int, name: str, model: str, tasks: Sequence[str]) -> float | None:
    """The paper's mean difference to SFT over `tasks`, in percent points; None where it lacks one of them.

    Over all of its tasks it is the one that it prints; over fewer, that of the differences that it prints.
    """
    numbers, names = printed(table), [TASKS.get(task, "") for task in tasks]
    if set(names) == set(TASKS.values()):
        names = ["average"]
    found = [numbers.get((model, of, name)) for of in names]
    deltas = [each.delta for each in found if each is not None and each.delta is not None]
    return sum(deltas) / len(deltas) if len(deltas) == len(names) else None


def numbers_of(table: int, model: str, name: str) -> list[Printed]:
    """All that a table prints for a model and a method."""
    return [each for (of, _, method), each in printed(table).items() if (of, method) == (model, name)]


def accuracy_text(number: Printed | None) -> str:
    """A number of the paper, as in "86.2 (−2.0)"."""
    if number is None or number.accuracy is None:
        return NOTHING
    return f"{number.accuracy:.1f}" + ("" if number.delta is None else f" ({delta_text(number.delta)})")


def delta_text(points: float | None) -> str:
    """A difference in percent points, with its sign."""
    return NOTHING if points is None else signed(points / 100)


def delta_range(table: int, name: str, task: str) -> str:
    """The smallest and the largest difference to SFT that a table has for a method and a task, over its models."""
    return range_text([each.delta for (_, of, method), each in printed(table).items() if (of, method) == (task, name)])


def range_text(points: Sequence[float | None]) -> str:
    """The smallest and the largest of differences in percent points, as in "(−2.0 to +0.7)"; None is none."""
    deltas = [delta for delta in points if delta is not None]
    if not deltas:
        return NOTHING
    low, high = delta_text(min(deltas)), delta_text(max(deltas))
    return f"({low})" if low == high else f"({low} to {high})"


def sizes_note(outcomes: Outcomes, model: str, tasks: Sequence[str]) -> str:
    """On how many examples was trained and scored, beside the paper's counts, and which splits these are."""
    texts = []
    for task in tasks:
        runs = [record for cell in outcomes.of(model, task) for record in outcomes.finals(cell)]
        if not runs:
            continue
        trained = " or ".join(f"{count:,}" for count in sorted({record.examples for record in runs}))
        scored = " or ".join(f"{count:,}" for count in sorted({record.n for record in runs}))
        paper = SIZES.get(TASKS.get(task, ""))
        beside = f"; the paper {paper[0]:,} and {paper[1]:,}" if paper else "; not a task of the paper"
        # Of files of one's own the note names the paths: a report says nothing of the disk that it was made on.
        told = {re.sub(r"(?<!\S)/\S*/", "", record.split_note) for record in runs if record.split_note}
        notes = " or ".join(sorted(told))
        splits = f" (splits: {notes})" if notes else ""
        name = task_name(outcomes, task)
        texts.append(f"{name}: trained on {trained}, scored on {scored} {runs[0].split}{splits}{beside}")
    return "Examples. " + ". ".join(texts) + "." if texts else ""


def reference_text(table: int, model: str) -> str:
    """What the rows of the paper mean for a model."""
    return OTHER_MODELS if model_in(table, model) is None else PAPER_ROWS


def model_in(table: int, model: str) -> str | None:
    """The name of a model in one of the paper's tables, or None if the table does not have it."""
    name = paper_model(model)
    return name if any(of == name for of, _, _ in printed(table)) else None
