"""The cells that runs alone tell of, for a results.jsonl without the cells.jsonl of its sweep."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from trimtab.results import CellRecord, RunRecord
from trimtab.sweeps.cells import cell_settings, over_seeds


def cells_of_runs(records: Iterable[RunRecord]) -> list[CellRecord]:
    """A cell for each model, task, method and settings, as far as its runs tell; what finished last stands last.

    The runs of a cell have the same settings but for rate and seed, and its scores are over equally many examples. The
    chosen rate is the one that has been scored on test, the latest where several have been. In a study on validation
    alone it is the rate with the most right answers over the choosing seeds, of equal ones the smaller, as a sweep
    chooses: the seeds that more than one rate has been tried with, as further ones are run at the chosen rate only; a
    rate that has not been tried with all of them is not chosen.
    """
    grouped: dict[str, list[RunRecord]] = {}
    for record in sorted(records, key=lambda each: each.finished):
        # Not by the label: a run that two recipes share has the label of the one that ran it first.
        grouped.setdefault(_trained(record), []).append(record)
    cells = [pair for group in grouped.values() for pair in _cells(group)]
    return [cell for _, cell in sorted(cells, key=lambda pair: pair[0])]


def _cells(records: Sequence[RunRecord]) -> Iterator[tuple[str, CellRecord]]:
    """The cells of equal settings, one for each number of scored examples, and when the latest run of each finished."""
    tested = [record for record in records if record.split == "test"]
    trials = [record for record in records if record.split != "test"]
    scored: dict[str, list[RunRecord]] = {}
    for record in tested or trials:
        scored.setdefault(json.dumps(cell_settings(record.configuration)["scored"]), []).append(record)
    for finals in scored.values():
        own = trials if tested else finals
        yield max(record.finished for record in (*own, *finals)), _cell(_of_latest_size(own), finals)


def _cell(trials: Sequence[RunRecord], finals: Sequence[RunRecord]) -> CellRecord:
    """The cell with these runs on validation, and these that its score is taken from, in the order of their time."""
    tried: dict[float, dict[int, RunRecord]] = {}
    for record in trials:
        tried.setdefault(record.learning_rate, {})[record.seed] = record
    tries = Counter(seed for seeds in tried.values() for seed in seeds)
    choosing = {seed for seed, rates in tries.items() if rates > 1 or len(tried) == 1}
    validation: list[list[float]] = []
    for rate, seeds in sorted(tried.items()):
        if choosing and choosing <= seeds.keys():
            counted = [seeds[seed] for seed in choosing]
            validation.append([rate, sum(each.correct for each in counted), sum(each.n for each in counted)])
    latest = finals[-1]
    chosen = latest.learning_rate
    if latest.split != "test" and validation:
        chosen = max(validation, key=lambda each: (each[1] / each[2], -each[0]))[0]
    own = _of_latest_size([record for record in finals if record.learning_rate == chosen])
    newest = {record.seed: record for record in own}  # of a seed that was scored twice
    kept = [newest[seed] for seed in sorted(newest)]
    return CellRecord(
        model=latest.model,
        task=latest.task,
        method=latest.method,
        family=latest.family,
        split=latest.split,
        learning_rates=sorted({record.learning_rate for record in (*trials, *finals)}),
        validation=validation,
        diverged=[],
        learning_rate=chosen,
        seeds=[record.seed for record in kept],
        trainable_parameters=latest.trainable_parameters,
        model_parameters=latest.model_parameters,
        trials=[record.run for record in trials],
        missing=[],
        settings=cell_settings(latest.configuration),
        **over_seeds(kept),
    )


def _of_latest_size(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Those over as many examples as the latest: shares of other examples are not compared, nor pooled."""
    return [record for record in records if record.n == records[-1].n]


def _trained(record: RunRecord) -> str:
    """What the trainings of one cell have in common."""
    return json.dumps([record.model, {**cell_settings(record.configuration), "scored": None}], sort_keys=True)
