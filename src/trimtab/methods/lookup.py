"""A method by its name, with some of its settings changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from trimtab.methods.configurations import check_options, configuration
from trimtab.methods.method import Method
from trimtab.methods.table import METHODS
from trimtab.registry import check_choice

_RULES = ("learning_rate", "schedule", "warmup_ratio", "weight_decay", "rate_factors")


def get_method(name: str, **overrides: Any) -> Method:
    """The method called `name`, with some of its settings changed.

    Args:
        name: one of `METHODS`.
        overrides: a learning rule's setting (learning_rate, schedule, warmup_ratio, weight_decay, rate_factors)
            or an option of the adapter's configuration (r, site, positions, ...). Options of an option are merged
            with those of the row: `lora={"r": 4}`, or as one key `**{"lora.r": 4}`, changes the rank of the LoRA
            half of a joint method and nothing else of it.

    Raises:
        ValueError: an unknown name or setting (with the nearest one), or a value out of range.
    """
    row = METHODS[check_choice("method", name, METHODS)]
    rules = {key: value for key, value in overrides.items() if key in _RULES}
    options = _nested({key: value for key, value in overrides.items() if key not in _RULES})
    check_options(name, row.family, options, _RULES)
    adapter = _merged(row.adapter, options)
    configuration(row.family, adapter)  # checks its own values, here before a model is loaded
    return replace(row, adapter=adapter, **rules)


def _nested(options: Mapping[str, Any]) -> dict[str, Any]:
    """{"lora.r": 4} as {"lora": {"r": 4}}."""
    found: dict[str, Any] = {}
    for key, value in options.items():
        outer, dot, inner = key.partition(".")
        found = _merged(found, {outer: _nested({inner: value}) if dot else value})
    return found


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """`old` with the values of `new`, mapping by mapping."""
    both = {**old, **new}
    for key in old.keys() & new.keys():
        if isinstance(old[key], Mapping) and isinstance(new[key], Mapping):
            both[key] = _merged(old[key], new[key])
    return both
