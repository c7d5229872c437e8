"""Two recipes of runs compared: an interrupted run goes on with the one that it began with."""

from __future__ import annotations

import json
from typing import Any

DATA_FILES = "data_files"
"""The part of a recipe that holds the digests of the user's data files; recipes of earlier versions have none."""


def plain(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe as YAML gives it back (tuples become lists, paths text), so that two can be compared."""
    written: dict[str, Any] = json.loads(json.dumps(recipe, default=str))
    return written


def computed(recipe: dict[str, Any]) -> dict[str, Any]:
    """The settings that the numbers depend on: all but how often the run can be resumed from, and who hears of it."""
    if "runs" in recipe:  # of a pass over several
        return {**recipe, "runs": [computed(each) for each in recipe["runs"]]}
    without = ("checkpoint_every", "report_to")
    training = {key: value for key, value in recipe.get("training", {}).items() if key not in without}
    return {**recipe, "training": training}


def differences(old: dict[Any, Any], new: dict[Any, Any], prefix: str = "") -> str:
    """The settings in which two recipes differ, as "method.learning_rate (0.1 there, 0.2 here)"."""
    found = []
    for key in {**old, **new}:
        if key == DATA_FILES and key not in old:  # of an earlier version: nothing is known of its data
            continue
        there, here = _by_place(old.get(key)), _by_place(new.get(key))
        if isinstance(there, dict) and isinstance(here, dict):
            found.append(differences(there, here, f"{prefix}{key}."))
        elif there != here:
            found.append(f"{prefix}{key} ({there!r} there, {here!r} here)")
    return ", ".join(each for each in found if each)


def _by_place(value: Any) -> Any:
    """A list of settings, as of the runs that are trained together, by their number; anything else as it is."""
    return (
        dict(enumerate(value)) if isinstance(value, list) and any(isinstance(each, dict) for each in value) else value
    )
