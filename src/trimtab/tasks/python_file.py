"""The user's own task as one Python file, outside the package. Loading it runs it."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Collection
from dataclasses import is_dataclass
from pathlib import Path
from types import ModuleType

from trimtab.tasks.base import Task

SUFFIX = ".py"
_MODULE = "trimtab_task_file_"

_NAME = re.compile(r"[\w.-]+")  # results and run directories are called by it


def load_python_task(path: str | Path, taken: Collection[str]) -> type[Task]:
    """Run a Python file and return the one concrete task that is defined in it.

    This is code execution: call it only for a path that the user has named, never for one found in data.

    Args:
        path: the file.
        taken: names that the task must not have: a result would be read as that of another task.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an error in the file, no task or several, or a task that cannot be used: not a dataclass, without
            a name or a generation limit, or with a method missing.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    module = ModuleType(f"{_MODULE}{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look their annotations up there
    try:
        # Not by importlib, whose cached bytecode lies in the user's folder and may be that of an older version.
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)  # noqa: S102 - the user has named it
    except Exception as error:  # whatever the user's code raises
        del sys.modules[module.__name__]
        raise ValueError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    own = [
        member
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, Task) and member.__module__ == module.__name__
    ]
    concrete = [member for member in own if not inspect.isabstract(member)]
    if len(concrete) != 1:
        raise ValueError(f"{path} must define one task, a class derived from Task. {_what_there_is(own, concrete)}")
    _check(path, concrete[0], taken)
    return concrete[0]


def file_of(task: Task) -> Path | None:
    """The Python file that `load_python_task` has read the class of `task` from; None if it comes from elsewhere."""
    module = type(task).__module__
    return Path(inspect.getfile(type(task))) if module.startswith(_MODULE) else None


def _what_there_is(own: list[type[Task]], concrete: list[type[Task]]) -> str:
    if concrete:
        return f"It defines {', '.join(sorted(member.__name__ for member in concrete))}."
    lacks = [f"{each.__name__} lacks {', '.join(sorted(each.__abstractmethods__))}." for each in own]
    return " ".join(lacks) or "It defines none."


def _check(path: Path, task: type[Task], taken: Collection[str]) -> None:
    name, limit = getattr(task, "name", None), getattr(task, "max_new_tokens", None)
    if not is_dataclass(task):
        raise ValueError(f"{path}: {task.__name__} must be a dataclass: @dataclass(frozen=True).")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"{path}: {task.__name__}.name must be a word, not {name!r}.")
    if name in taken:
        raise ValueError(f"{path}: {task.__name__}.name is {name!r}, the name of a task of trimtab's. Choose another.")
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise ValueError(f"{path}: {task.__name__}.max_new_tokens must be a whole number of at least 1, not {limit!r}.")
