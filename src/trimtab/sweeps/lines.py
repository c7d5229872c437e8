"""Records in files: one in a file of its own, or one a line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from trimtab.files import read_json_lines, write_text
from trimtab.results import Record

_R = TypeVar("_R", bound=Record)


def load_record(path: Path, kind: type[_R]) -> _R | None:
    """The record in a file; None if there is no such file, or an empty one, as a power cut may leave.

    Raises:
        ValueError: the file holds something else; it is named.
    """
    try:
        return kind.load(path) if path.stat().st_size else None
    except FileNotFoundError:  # there is none, or another sweep retries the run at this moment
        return None


def write_lines(path: Path, records: Iterable[Record]) -> None:
    """Write a line for each record in place of what is there."""
    write_text(path, "".join(json.dumps(record.to_dict(), ensure_ascii=False) + "\n" for record in records))


def read_lines(path: Path, kind: type[_R]) -> list[_R]:
    """The records of a file of a sweep.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line of another schema.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} is not the directory of a sweep: it has no {path.name}.")
    return [kind.from_dict(content, path) for content in read_json_lines(path)]
