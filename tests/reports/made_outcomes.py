"""Outcomes of runs that never ran."""

from __future__ import annotations

from typing import Any

from made_runs import made_run
from trimtab.reports import Outcomes
from trimtab.reports.cells_of_runs import cells_of_runs
from trimtab.reports.told_apart import told_apart
from trimtab.results import RunRecord


def outcomes(*records: RunRecord, **fields: Any) -> Outcomes:
    """The outcomes of these runs, in their order."""
    runs = {record.run: record for record in records}
    assert len(runs) == len(records)
    order = list(dict.fromkeys((record.model, record.task, record.method) for record in records))
    cells = sorted(cells_of_runs(records), key=lambda cell: order.index(cell.place[:3]))
    named, variants = told_apart(cells)
    return Outcomes(tuple(named), runs, ("made",), variants=variants, **fields)


def seeds(*correct: int, **fields: Any) -> list[RunRecord]:
    """A run on test for each number of right answers."""
    return [made_run(**{"seed": seed, "correct": right, **fields}) for seed, right in enumerate(correct)]


def everything(model: str = "smollm2-135m") -> Outcomes:
    """Methods of all tables and of none, on two tasks, with three rates and two seeds."""
    methods: list[tuple[str, dict[str, Any], int]] = [
        ("sft", {}, 62),
        ("lora", {}, 60),
        ("lora-r16", {}, 61),
        ("reft", {}, 40),
        ("reft-last", {}, 42),
        ("post-block", {}, 58),
        ("post-block", {"r": 64}, 59),
        ("post-block-plus", {}, 63),
        ("lofit-all-heads", {}, 41),
        ("jola", {}, 44),
        ("1-vec", {}, 50),
        ("post-block-r1", {}, 52),
        ("joint", {}, 60),
        ("joint-orth", {}, 64),
    ]
    records = []
    for task in ("boolq", "listops-small"):
        for index, (method, changes, right) in enumerate(methods):
            given: dict[str, Any] = {
                "method": method,
                "changes": changes,
                "model": model,
                "task": task,
                "trainable_parameters": 1_000_000 if method == "sft" else 300 * (index + 1),
                "training_seconds": 40.0 + 3 * index,
            }
            for rate, less in ((1e-3, 9), (2e-3, 0), (5e-3, 21)):
                records.append(made_run(**given, rate=rate, split="validation", correct=right - less))
            records += seeds(right - 1, right + 1, **given, rate=2e-3)
    return outcomes(*records)
