"""Cells of one model, task and method with other settings, and the words by which a report tells them apart."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from trimtab.results import CellRecord

_FIRST = ("training.examples", "scored")
"""What tells cells apart in the shortest words, where it does."""


def told_apart(cells: Sequence[CellRecord]) -> tuple[list[CellRecord], dict[str, str]]:
    """The cells, with labels that say what is different where two would have the same; and these words, by label.

    Two recipes with 400 and 800 examples in one directory give "post-block [examples=400]" and "post-block
    [examples=800]". A label that only one cell of its model, task and split has stays as it is.
    """
    groups: dict[tuple[str, ...], list[CellRecord]] = {}
    for cell in cells:
        groups.setdefault(cell.place[:4], []).append(cell)
    found, words = [], {}
    for cell in cells:
        group = groups[cell.place[:4]]
        said = _difference(cell, group) if len(group) > 1 else ""
        label = f"{cell.method} [{said}]" if said else cell.method
        found.append(replace(cell, method=label))
        if said:
            words[label] = said
    return found, words


def _difference(cell: CellRecord, group: Sequence[CellRecord]) -> str:
    """By what a cell differs from the others, as in "examples=400"."""
    settings = [dict(_flat(each.settings or {})) for each in group]
    own = dict(_flat(cell.settings or {}))
    names = dict.fromkeys((*_FIRST, *(name for each in settings for name in each)))
    values = {name: [json.dumps(each.get(name)) for each in settings] for name in names}
    single = next((name for name in names if len(set(values[name])) == len(group)), None)
    chosen = [name for name in names if len(set(values[name])) > 1] if single is None else [single]
    return ", ".join(f"{_word(name, cell)}={_shown(name, own.get(name))}" for name in chosen)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting by its dotted name; the files of a task, whose names are paths, as their contents' hashes."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and key == "files":
            yield f"{prefix}data", "+".join(sorted(str(digest)[:4] for digest in value.values()))
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _word(name: str, cell: CellRecord) -> str:
    """A setting as a recipe calls it."""
    return f"{cell.split}_examples" if name == "scored" else name.rpartition(".")[2]


def _shown(name: str, value: Any) -> str:
    """A value in a label; a path by its last word: a report says nothing of the disk that it was made on."""
    if value is None and name in _FIRST:
        return "all"
    return PurePath(value).name if isinstance(value, str) and PurePath(value).is_absolute() else str(value)
