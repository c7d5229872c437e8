"""The recipe that a run directory holds, as options of the command line."""

from __future__ import annotations

from typing import Any

_PARTS = {"model", "task", "method", "training"}
_SELECTION = "selection"
"""The first stage of a run whose method selects heads; `trimtab train` derives it from the method."""


def is_of_a_run(recipe: object) -> bool:
    """Whether `recipe` is what `RunDirectory` writes, and not a recipe of options."""
    if not isinstance(recipe, dict) or set(recipe) - {_SELECTION} != _PARTS:
        return False
    return isinstance(recipe["method"], dict)


def flatten(recipe: dict[str, Any]) -> dict[str, Any]:
    """The options with which `trimtab train` repeats the run of `recipe`."""
    task, method = dict(recipe["task"]), dict(recipe["method"])
    name = task.pop("name")
    if name == "jsonl":  # on the command line such a task is called by its file
        name = task.pop("path")
    if str(name).endswith(".py"):  # a run never writes one; loading it would run a file that nobody named
        raise ValueError("The recipe names a Python file as its task. Name it yourself: --task FILE.")
    rule = {key: method[key] for key in ("learning_rate", "schedule", "warmup_ratio", "weight_decay")}
    if "rate_factors" in method:
        rule["rate_factors"] = method["rate_factors"]
    return {
        "model": recipe["model"],
        "task": name,
        "task_options": task,
        "method": method["name"],
        "adapter_options": method["adapter"],
        **rule,
        **recipe["training"],
    }
