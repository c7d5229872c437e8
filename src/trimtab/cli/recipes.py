"""The recipe that a run directory holds, as options of the command line."""

from __future__ import annotations

from typing import Any

from trimtab.training.recipe_differences import DATA_FILES

_PARTS = {"model", "task", "method", "training"}
_RULE = ("learning_rate", "schedule", "warmup_ratio", "weight_decay")
_SELECTION = "selection"
"""The first stage of a run whose method selects heads; `trimtab train` derives it from the method."""
_ADDED = {_SELECTION, DATA_FILES}
"""Parts that not every run has, and that are no options."""


class RecipeError(ValueError):
    """The recipe of a run lacks a setting, or holds one that no run writes."""


def is_of_a_run(recipe: object) -> bool:
    """Whether `recipe` is what `RunDirectory` writes, and not a recipe of options."""
    if not isinstance(recipe, dict) or set(recipe) - _ADDED != _PARTS:
        return False
    return isinstance(recipe["method"], dict)


def flatten(recipe: dict[str, Any]) -> dict[str, Any]:
    """The options with which `trimtab train` repeats the run of `recipe`.

    Raises:
        RecipeError: a setting is missing, or the task is a Python file.
    """
    for part in ("task", "method", "training"):
        if not isinstance(recipe.get(part), dict):
            raise RecipeError(f"The recipe of the run lacks {part!r}.")
    try:
        return _options(recipe)
    except KeyError as error:
        raise RecipeError(f"The recipe of the run lacks {error}.") from error


def _options(recipe: dict[str, Any]) -> dict[str, Any]:
    task, method = dict(recipe["task"]), dict(recipe["method"])
    name = task.pop("name")
    if name == "jsonl":  # on the command line such a task is called by its file
        name = task.pop("path")
    if str(name).endswith(".py"):  # a run never writes one; loading it would run a file that nobody named
        raise RecipeError("The recipe names a Python file as its task. Name it yourself: --task FILE.")
    rule = {key: method[key] for key in _RULE}
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
