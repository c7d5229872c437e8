"""Where `trimtab eval` writes, and what it must not write over."""

from __future__ import annotations

import json
import os
from pathlib import Path

from trimtab.results import EvaluationResult
from trimtab.training import RunDirectory

RECORDS = "records.jsonl"
RESULT = "result.json"


def default_directory(name: str, of_run: bool, task: str, split: str, strength: float | None) -> Path:
    """The directory of an evaluation for which none was named.

    Args:
        name: the adapter, or the model.
        of_run: whether that is a run directory, in which its evaluations lie too.
        task: the task's name.
        split: train, validation or test.
        strength: of the adapter, where one was given.
    """
    home = Path(name) if of_run else Path("runs", *_distinct_parts(name))
    suffix = "" if strength is None else f"-strength-{strength:g}"
    return home / "evaluation" / f"{task}-{split}{suffix}"


def require_writable(directory: Path, overwrite: bool) -> None:
    """Refuse a directory in which an evaluation would replace something else, before a model is loaded.

    A training run has a result.json too, by which it counts as finished: an evaluation in its place would end an
    unfinished run and lose the result of a finished one.

    Args:
        directory: where records.jsonl and result.json are to be written; it need not exist.
        overwrite: an earlier evaluation may be replaced, and nothing else.

    Raises:
        FileExistsError: it is a file, or holds a training run, a result of another kind, records without a result, or
            (unless `overwrite`) an evaluation.
    """
    if directory.exists() and not directory.is_dir():
        raise FileExistsError(f"{directory} is a file, not a directory.")
    if held := _something_else(directory):
        raise FileExistsError(f"{directory} holds {held}, which an evaluation never replaces. Choose another --out.")
    if (directory / RESULT).exists() and not overwrite:
        raise FileExistsError(f"{directory} holds a result. Choose another --out, or --overwrite it.")


def _something_else(directory: Path) -> str | None:
    """What is in the place of an evaluation's files and is none; None: nothing, or an earlier evaluation."""
    if RunDirectory(directory).recipe_file.exists():
        return "a training run"
    result = directory / RESULT
    if not result.exists():
        return f"a {RECORDS} without a {RESULT}" if (directory / RECORDS).exists() else None
    try:
        found = json.loads(result.read_text(encoding="utf-8"))
    except ValueError:
        return f"a {RESULT} that is cut off or no JSON"
    # The kind alone: an evaluation of another version, which cannot be read here, can be replaced all the same.
    if isinstance(found, dict) and found.get("kind") == EvaluationResult.__name__:
        return None
    return f"a {RESULT} that is no evaluation's"


def _distinct_parts(name: str) -> tuple[str, ...]:
    """Folder names that no other model or adapter has: its path from here, or from the root if it is elsewhere."""
    if not Path(name).is_dir():
        return Path(name).parts
    path = Path(os.path.abspath(name))
    if path.is_relative_to(Path.cwd()):
        return path.relative_to(Path.cwd()).parts
    return path.parts[1:]
