"""cells.jsonl: a line for each model, task and method, with the rate that was chosen and the values of every seed.

A recipe that grows can change its choice, and then results.jsonl holds test scores at two rates of one cell. Which of
them counts is said here, where the recipe is known.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.results import CellRecord, RunRecord
from trimtab.sweeps.directory import SweepDirectory
from trimtab.sweeps.grid import Cell, Grid
from trimtab.sweeps.selection import DIVERGED, Outcomes, chosen_rate, finished_finals, needed_runs, scored_rates
from trimtab.sweeps.shared_cells import covers


def cell_record(cell: Cell, outcomes: Outcomes) -> CellRecord:
    """What has come of a cell so far."""
    rate, finals = chosen_rate(cell, outcomes), finished_finals(cell, outcomes)
    trials = [record for run in cell.trials if (record := outcomes.record(run)) is not None]
    known = next(iter((*finals, *trials)), None)
    choices = {choice.rate: choice for choice in scored_rates(cell, outcomes)}
    failures = [(run.learning_rate, outcomes.failure(run)) for run in cell.trials]
    return CellRecord(
        model=cell.model,
        task=cell.task,
        method=cell.method,
        family=cell.family,
        split=next(iter(cell.finals.values()))[0].split,
        learning_rates=cell.rates,
        validation=[[each, choices[each].correct, choices[each].n] for each in cell.rates if each in choices],
        diverged=list(dict.fromkeys(each for each, failure in failures if failure and failure.error == DIVERGED)),
        learning_rate=rate,
        seeds=[run.seed for run in next(iter(cell.finals.values()))],
        trainable_parameters=None if known is None else known.trainable_parameters,
        model_parameters=None if known is None else known.model_parameters,
        trials=[record.run for record in trials],
        missing=_missing(cell, outcomes, rate),
        settings=cell_settings(next(iter(cell.finals.values()))[0].to_dict()),
        **over_seeds(finals),
    )


def cell_settings(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """What the runs of a cell have in common: all but rate and seed, and of the scoring the number of examples.

    Args:
        configuration: of one of the runs that the cell's score is taken from.
    """
    return {
        "task": configuration["task"],
        "method": {key: value for key, value in configuration["method"].items() if key != "learning_rate"},
        "training": {key: value for key, value in configuration["training"].items() if key != "seed"},
        "scored": configuration["evaluation"].get("examples"),
    }


def over_seeds(finals: Sequence[RunRecord]) -> dict[str, Any]:
    """The fields of a `CellRecord` that the runs at the chosen rate, one a seed, give.

    Raises:
        ValueError: the runs answered different numbers of examples.
    """
    if len({record.n for record in finals}) > 1:
        raise ValueError(f"The seeds of {finals[0].method} on {finals[0].task} answered different numbers of examples.")
    accuracies = [record.accuracy for record in finals]
    mean = statistics.fmean(accuracies) if finals else None
    return {
        "finished_seeds": [record.seed for record in finals],
        "accuracies": accuracies,
        "accuracy": mean,
        "standard_deviation": statistics.stdev(accuracies) if len(finals) > 1 else None,
        "standard_error": None if mean is None else math.sqrt(mean * (1 - mean) / finals[0].n),
        "n": finals[0].n if finals else None,
        "runs": [record.run for record in finals],
    }


def write_cells(grid: Grid, directory: SweepDirectory) -> None:
    """Bring cells.jsonl up to date. Lines that other recipes have left in the directory stay.

    Of a cell of this grid they stay if they want a seed or a rate that it does not want: what has finished there would
    be lost with them. A line of an earlier version says nothing of its settings: it makes way for one of the same name.
    """

    def records(old: list[CellRecord]) -> list[CellRecord]:
        new = {record.place: record for record in (cell_record(cell, directory) for cell in grid.cells)}
        names = {place[:4] for place in new}

        def stays(line: CellRecord) -> bool:
            if line.place in new:
                return not covers(new[line.place], line)
            return bool(line.settings) or line.place[:4] not in names

        return [*filter(stays, old), *new.values()]

    directory.update_cells(records)


def _missing(cell: Cell, outcomes: Outcomes, rate: float | None) -> list[dict[str, Any]]:
    """The runs that are needed and not there. At a rate that diverged nothing is missing."""
    found = []
    for run in needed_runs(cell, outcomes):
        failure = outcomes.failure(run)
        if outcomes.record(run) is None and (failure is None or failure.error != DIVERGED or run not in cell.trials):
            found.append(
                {
                    "learning_rate": run.learning_rate if run in cell.trials else rate,
                    "seed": run.seed,
                    "split": run.split,
                    "error": None if failure is None else f"{failure.error}: {failure.message}",
                }
            )
    return found
