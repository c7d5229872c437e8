"""WHAT is learnt: one file a task, found by its folder."""

from __future__ import annotations

import inspect
import sys
from functools import cache
from typing import Any

from trimtab.registry import check_choice, modules_in, unknown
from trimtab.tasks.base import SPLITS, Example, Message, Split, Task
from trimtab.tasks.jsonl import SUFFIXES, JsonlTask

__all__ = ["SPLITS", "Example", "JsonlTask", "Message", "Split", "Task", "get_task", "task_names"]


@cache
def _table() -> dict[str, type[Task]]:
    """Every concrete task of the folder by its name, but for `JsonlTask`: a path is its name."""
    return {
        member.name: member
        for module in modules_in(sys.modules[__name__])
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, Task) and not inspect.isabstract(member) and member is not JsonlTask
    }


def task_names() -> tuple[str, ...]:
    """The names of all tasks, sorted; besides them `get_task` takes any path ending in `.jsonl`."""
    return tuple(sorted(_table()))


def get_task(name: str, **options: Any) -> Task:
    """The task called `name`, or the user's own data if `name` is the path of a JSONL file.

    Args:
        name: one of `task_names()`, or a path ending in `.jsonl` or `.jsonl.gz`.
        options: fields of the task's class (`data_dir=...` for a stored task, `max_depth=...` for ListOps).

    Raises:
        ValueError: there is no such task or option; the message names the nearest one.
    """
    if name.endswith(SUFFIXES):
        return JsonlTask(name, **_checked(name, JsonlTask, options, given=("path",)))
    table = _table()
    if name not in table:
        raise unknown("task", name, (*table, "<a path ending in .jsonl>"))
    return table[name](**_checked(name, table[name], options))


def _checked(name: str, task: type[Task], options: dict[str, Any], given: tuple[str, ...] = ()) -> dict[str, Any]:
    """`options` if the task's constructor has them all."""
    known = set(inspect.signature(task).parameters) - set(given)
    for option in options:
        check_choice(f"option of task {name!r}", option, known)
    return options
