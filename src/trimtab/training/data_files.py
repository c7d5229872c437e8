"""The content of the files that a task reads: a run that goes on must find the same."""

from __future__ import annotations

import hashlib
import os
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

from trimtab.tasks import JsonlTask, Task
from trimtab.tasks.python_file import file_of
from trimtab.tasks.stored import StoredTask


def data_digests(task: Task) -> dict[str, str]:
    """SHA-256 of each of the user's files that the examples are made of, by its path as the task has it.

    Validation and test count too: their lines are taken out of train. What a task of the user's own reads is not
    known: its Python file counts, whatever file an option names, and all files in its `data_dir`.

    Raises:
        FileNotFoundError: a file of JSON lines is not there.
    """
    if isinstance(task, JsonlTask):
        files = [Path(each) for each in (task.path, task.validation, task.test) if isinstance(each, str | Path)]
        for path in files:
            if not path.is_file():
                raise FileNotFoundError(f"There is no file {path}.")
        named = {str(path): path for path in files}
    elif isinstance(task, StoredTask):
        named = {str(path): path for path in task.files_read()}
    else:
        named = _of_an_own_task(task)
    return {name: _digest(named[name]) for name in sorted(named)}


def _of_an_own_task(task: Task) -> dict[str, Path]:
    options = [getattr(task, each.name) for each in fields(cast(Any, task))]
    given = [Path(value) for value in options if isinstance(value, str | Path) and Path(value).suffix]
    folder = getattr(task, "data_dir", None)
    if folder is not None and Path(folder).is_dir():
        given += Path(folder).iterdir()
    # Not path.is_file(), which raises for a name that is too long: an option may be a text.
    found = {str(path): path for path in given if os.path.isfile(path)}
    own = file_of(task)
    # By its name alone: the recipe has no path of it, and from another folder it is the same file.
    return found if own is None or not own.is_file() else {**found, own.name: own}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"
