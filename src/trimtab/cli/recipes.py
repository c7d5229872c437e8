"""The recipe that a run directory holds, as options of the command line."""

from __future__ import annotations

from typing import Any

_PARTS = {"model", "task", "method", "training"}


def is_of_a_run(recipe: object) -> bool:
    """Whether `recipe` is what `RunDirectory` writes, and not a recipe of options."""
    return isinstance(recipe, dict) and set(recipe) == _PARTS and isinstance(recipe["method"], dict)


def flatten(recipe: dict[str, Any]) -> dict[str, Any]:
    """The options with which `trimtab train` repeats the run of `recipe`."""
    task, method = dict(recipe["task"]), dict(recipe["method"])
    name = task.pop("name")
    if name == "jsonl":  # on the command line such a task is called by its file
        name = task.pop("path")
    rule = {key: method[key] for key in ("learning_rate", "schedule", "warmup_ratio", "weight_decay")}
    return {
        "model": recipe["model"],
        "task": name,
        "task_options": task,
        "method": method["name"],
        "adapter_options": method["adapter"],
        **rule,
        **recipe["training"],
    }
