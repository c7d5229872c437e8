"""Lines of cells.jsonl that several recipes in one directory leave of one cell: which stays, and which counts.

Such recipes share their runs, and may want other seeds or learning rates of the same model, task, method and settings.
Were there one line for all of them, the recipe that was started last would decide how many seeds there are.
"""

from __future__ import annotations

from collections.abc import Iterable

from trimtab.results import CellRecord


def covers(new: CellRecord, old: CellRecord) -> bool:
    """Whether a line tells all that another of the same cell tells: it wants the same seeds and rates, or more."""
    return set(old.seeds) <= set(new.seeds) and set(old.learning_rates) <= set(new.learning_rates)


def one_a_cell(lines: Iterable[CellRecord]) -> tuple[list[CellRecord], list[CellRecord]]:
    """The line that counts of each cell, and the others, both in the order of the file.

    The line with the most finished seeds counts; of equal ones that which lacks fewer runs, then the one behind the
    other in the file, which was written last.
    """
    lines = list(lines)
    best: dict[tuple[str, ...], tuple[tuple[int, ...], int]] = {}
    for index, line in enumerate(lines):
        ranked = (len(line.finished_seeds), -len(line.missing)), index
        best[line.place] = max(ranked, best.get(line.place, ranked))
    counting = {index for _, index in best.values()}
    return (
        [line for index, line in enumerate(lines) if index in counting],
        [line for index, line in enumerate(lines) if index not in counting],
    )
