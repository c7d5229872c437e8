"""What the report is about: the cells of one sweep or several, and the runs behind them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from trimtab.reports.cells_of_runs import cells_of_runs
from trimtab.reports.told_apart import told_apart
from trimtab.results import CellRecord, RunRecord
from trimtab.sweeps import load_results
from trimtab.sweeps.cells import cell_settings
from trimtab.sweeps.directory import load_cell_lines
from trimtab.sweeps.shared_cells import one_a_cell

FULL = "full"
"""The family of full fine-tuning, from which the differences are taken."""


@dataclass(frozen=True)
class Outcomes:
    """The cells of the report in their order, and every finished run by its hash.

    A report is about one split: test, unless nothing has been scored on it.

    Attributes:
        cells: one for each model, task and method; where settings differ under one label, the label says how.
        runs: the finished runs.
        sources: where they were read, as a report names it.
        from_runs: those of the sources that have no cells.jsonl: what is missing in them is not known.
        left_out: cells that are in the sources and have been scored on validation only.
        other_lines: of cells of the report, what recipes with other seeds or rates in the same directory have; they do
            not count.
        variants: what such a label says of the settings, by label.
    """

    cells: tuple[CellRecord, ...]
    runs: dict[str, RunRecord]
    sources: tuple[str, ...]
    from_runs: tuple[str, ...] = ()
    left_out: tuple[CellRecord, ...] = ()
    other_lines: tuple[CellRecord, ...] = ()
    variants: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, paths: Sequence[str | Path]) -> Outcomes:
        """The results at `paths`: directories of sweeps, or files like their results.jsonl.

        Raises:
            FileNotFoundError: there are no results at a path.
            ValueError: no path, no result, results of another schema, or two that have other runs for the same cell.
        """
        if not paths:
            raise ValueError("A report needs the directory of a sweep, or its results.jsonl.")
        found: dict[tuple[str, ...], tuple[CellRecord, Path]] = {}
        runs: dict[str, RunRecord] = {}
        from_runs, other_lines = [], []
        for path in map(Path, paths):
            told, records = _cells_and_runs(path)
            runs |= {record.run: record for record in records}
            if told is None:
                from_runs.append(_shown(path))
            counting, others = (
                (cells_of_runs(records), []) if told is None else one_a_cell(_with_settings(told, records))
            )
            other_lines += others
            for cell in counting:
                merged = _merged(found[cell.place], (cell, path)) if cell.place in found else cell
                found[cell.place] = merged, path
        cells, variants = told_apart([cell for cell, _ in found.values()])
        if not cells:
            raise ValueError(f"There is no result in {', '.join(map(str, paths))}.")
        split = "test" if any(cell.split == "test" for cell in cells) else cells[0].split
        labels = {place: cell.method for place, cell in zip(found, cells, strict=True)}
        shown = {cell.place[:3] for cell in cells if cell.split == split}
        return cls(
            cells=tuple(cell for cell in cells if cell.split == split),
            runs=runs,
            sources=tuple(_shown(Path(path)) for path in paths),
            from_runs=tuple(from_runs),
            left_out=tuple(cell for cell in cells if cell.split != split and cell.place[:3] not in shown),
            other_lines=tuple(replace(each, method=labels[each.place]) for each in other_lines if each.split == split),
            variants=variants,
        )

    @property
    def split(self) -> str:
        """Which examples the seeds are scored on."""
        return self.cells[0].split

    @property
    def models(self) -> list[str]:
        """The models, in the order of the sweeps."""
        return list(dict.fromkeys(cell.model for cell in self.cells))

    @property
    def methods(self) -> list[str]:
        """The methods by their labels, likewise: their place is their colour in every figure."""
        return list(dict.fromkeys(cell.method for cell in self.cells))

    def tasks(self, model: str | None = None) -> list[str]:
        """The tasks, of one model or of all, likewise."""
        return list(dict.fromkeys(cell.task for cell in self.cells if model in (None, cell.model)))

    def of(self, model: str, task: str | None = None) -> list[CellRecord]:
        """The cells of a model, or of one of its tasks."""
        return [cell for cell in self.cells if cell.model == model and task in (None, cell.task)]

    def variant(self, cell: CellRecord) -> str:
        """What the cell's label says of its settings; nothing, if no other cell has the same model, task and method."""
        return self.variants.get(cell.method, "")

    def variants_of(self, model: str, task: str | None = None) -> list[str]:
        """The variants of a model, or of one of its tasks, in the order of the sweeps."""
        return list(dict.fromkeys(self.variant(cell) for cell in self.of(model, task)))

    def finals(self, cell: CellRecord) -> list[RunRecord]:
        """The runs at the cell's chosen rate."""
        return self._known(cell.runs)

    def all_runs(self, cell: CellRecord) -> list[RunRecord]:
        """Every finished run that the cell counts: its trials and its finals."""
        return self._known((*cell.trials, *cell.runs))

    def configuration(self, cell: CellRecord) -> Mapping[str, Any] | None:
        """What one of the cell's runs was trained with; None before one has finished."""
        return next((record.configuration for record in self.all_runs(cell)), None)

    def fine_tuned(self, cell: CellRecord) -> CellRecord | None:
        """Full fine-tuning of the same model and task, if it has a score; of several that with the same settings."""
        scored = [c for c in self.of(cell.model, cell.task) if c.family == FULL and c.accuracy is not None]
        same = [each for each in scored if self.variant(each) == self.variant(cell)]
        return next(iter((*same, *scored)), None)

    def delta(self, cell: CellRecord) -> float | None:
        """The cell's accuracy less that of full fine-tuning of the same model on the same task."""
        full = self.fine_tuned(cell)
        return None if full is None or cell.accuracy is None else cell.accuracy - (full.accuracy or 0.0)

    def _known(self, runs: Iterable[str]) -> list[RunRecord]:
        """The records of these hashes; while a sweep is running, cells.jsonl can be ahead of results.jsonl."""
        return [self.runs[run] for run in dict.fromkeys(runs) if run in self.runs]

    def short(self, name: str) -> str:
        """The last word of a model's or task's name that is a path or a hub's id, if no other has the same."""
        names = {*self.models, *self.tasks()}
        last = PurePosixPath(name).name
        return name if sum(PurePosixPath(each).name == last for each in names) > 1 else last


def validation_share(cell: CellRecord) -> float | None:
    """The share of right answers on validation at the cell's chosen rate; None if there was nothing to choose."""
    return next((correct / n for rate, correct, n in cell.validation if rate == cell.learning_rate), None)


def _cells_and_runs(path: Path) -> tuple[list[CellRecord] | None, list[RunRecord]]:
    """What a sweep's directory, or one file of results, holds; no cells: it does not tell them."""
    if path.is_dir() and (path / "cells.jsonl").is_file():
        # Of a sweep that has only just begun there are cells and no results.
        return load_cell_lines(path), load_results(path) if (path / "results.jsonl").is_file() else []
    return None, load_results(path)


def _with_settings(cells: Sequence[CellRecord], records: Iterable[RunRecord]) -> list[CellRecord]:
    """Cells with their settings, which lines of an earlier version leave to the runs behind their scores."""
    runs = {record.run: record.configuration for record in records}
    known = {cell.runs[0]: cell_settings(runs[cell.runs[0]]) for cell in cells if cell.runs and cell.runs[0] in runs}
    return [
        cell if cell.settings or not cell.runs else replace(cell, settings=known.get(cell.runs[0])) for cell in cells
    ]


def _merged(first: tuple[CellRecord, Path], second: tuple[CellRecord, Path]) -> CellRecord:
    """Of two cells of one place the one that has more, if its runs are those of the other and more."""
    less, more = sorted((first[0], second[0]), key=lambda cell: len(cell.runs) + len(cell.trials))
    if not {*less.runs, *less.trials} <= {*more.runs, *more.trials}:
        raise ValueError(
            f"{more.method} on {more.task} with {more.model} is in {first[1]} and in {second[1]}, with other settings "
            "or another choice: give one of them a label of its own in its recipe, or make two reports."
        )
    return more


def _shown(path: Path) -> str:
    """A path as a report names it: it says nothing of the disk that it was made on."""
    return path.name if path.is_absolute() else path.as_posix()
