"""Finished runs of another sweep: a grid goes on from its results, on another machine or in another directory."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from trimtab.results import RunRecord
from trimtab.sweeps.configuration import Configuration
from trimtab.sweeps.directory import SweepDirectory, load_results
from trimtab.sweeps.grid import Grid


def finished_elsewhere(grid: Grid, sources: Sequence[str | Path]) -> list[tuple[Configuration, RunRecord, Path]]:
    """The runs of `grid` that sweeps elsewhere have finished, each with its record and the folder of that sweep.

    Runs are the same where their hashes are, that is where all is that their numbers depend on.

    Args:
        grid: whose runs are looked for.
        sources: directories of sweeps, or files like their results.jsonl; of a run that several have, the first counts.

    Raises:
        FileNotFoundError: there is no such directory or file.
        ValueError: a line of another schema.
    """
    known: dict[str, tuple[RunRecord, Path]] = {}
    for source in map(Path, sources):
        folder = source.parent if source.is_file() else source
        for record in load_results(source):
            known.setdefault(record.run, (record, folder))
    runs = {run.hash: run for cell in grid.cells for run in cell.runs()}
    return [(run, *known[name]) for name, run in runs.items() if name in known]


def take_over(found: Sequence[tuple[Configuration, RunRecord, Path]], directory: SweepDirectory) -> int:
    """Give `directory` the records of runs that it lacks, and their answers where these are; how many it lacked.

    Weights are not taken over. A trial's training is run again if the cell's final runs need it.
    """
    taken = 0
    for run, record, folder in found:
        with directory.claimed(run) as mine:
            if not mine or directory.record(run) is not None:
                continue
            answers = folder / record.examples_file
            if answers.is_file():
                shutil.copyfile(answers, directory.file(run, ".jsonl"))
            directory.forget_failure(run)
            record.save(directory.file(run, ".json"))  # last: with it the run is finished
            taken += 1
    return taken
