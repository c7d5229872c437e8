"""The cells that runs alone tell of, for a results.jsonl without the cells.jsonl of its sweep."""

from __future__ import annotations

import json
from collections.abc import Iterable

from trimtab.results import CellRecord, RunRecord
from trimtab.sweeps.cells import over_seeds


def cells_of_runs(records: Iterable[RunRecord]) -> list[CellRecord]:
    """A cell for each model, task and method, as far as its runs tell.

    The runs of a cell have the same settings but for rate and seed; of several settings under one label the latest
    count. The chosen rate is the one that has been scored on test, the latest where several have been. In a study on
    validation alone it is the rate with the most right answers, of equal ones the smaller, as a sweep chooses.
    """
    grouped: dict[str, list[RunRecord]] = {}
    for record in sorted(records, key=lambda each: each.finished):
        # Not by the label: a run that two recipes share has the label of the one that ran it first.
        grouped.setdefault(_settings(record), []).append(record)
    cells = sorted((_cell(group) for group in grouped.values()), key=lambda pair: pair[0])
    return list({cell.place: cell for _, cell in cells}.values())


def _cell(records: list[RunRecord]) -> tuple[str, CellRecord]:
    """The cell, and when its latest run has finished."""
    tested = [record for record in records if record.split == "test"]
    trials = [record for record in records if record.split != "test"]
    rates = sorted({record.learning_rate for record in records})
    validation: list[list[float]] = []
    for rate in rates:
        scored = [record for record in trials if record.learning_rate == rate]
        if scored:
            validation.append([rate, sum(each.correct for each in scored), sum(each.n for each in scored)])
    best = max(validation, key=lambda each: (each[1] / each[2], -each[0]), default=[0.0])[0]
    chosen = tested[-1].learning_rate if tested else best
    finals = [record for record in tested or trials if record.learning_rate == chosen]
    latest = finals[-1]
    newest = {record.seed: record for record in finals if record.n == latest.n}  # of a seed that was scored twice
    finals = [newest[seed] for seed in sorted(newest)]
    cell = CellRecord(
        model=latest.model,
        task=latest.task,
        method=latest.method,
        family=latest.family,
        split=latest.split,
        learning_rates=rates,
        validation=validation,
        diverged=[],
        learning_rate=chosen,
        seeds=[record.seed for record in finals],
        trainable_parameters=latest.trainable_parameters,
        model_parameters=latest.model_parameters,
        trials=[record.run for record in trials],
        missing=[],
        **over_seeds(finals),
    )
    return records[-1].finished, cell


def _settings(record: RunRecord) -> str:
    """What the runs of one cell have in common."""
    content = json.loads(json.dumps(record.configuration))
    content.pop("evaluation", None)
    content["method"].pop("learning_rate", None)
    content["training"].pop("seed", None)
    return json.dumps(content, sort_keys=True)
