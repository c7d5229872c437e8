"""WHAT is added to the hidden state: one file a shift, found by its folder."""

from __future__ import annotations

import inspect
import sys
from functools import cache

from trimtab.interventions.base import Intervention, InterventionOptions
from trimtab.registry import check_choice, modules_in

__all__ = ["Intervention", "InterventionOptions", "get_intervention", "intervention_names"]


@cache
def _table() -> dict[str, type[Intervention]]:
    return {
        member.name: member
        for module in modules_in(sys.modules[__name__])
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, Intervention) and not inspect.isabstract(member)
    }


def intervention_names() -> tuple[str, ...]:
    """The names of all interventions, sorted."""
    return tuple(sorted(_table()))


def get_intervention(name: str) -> type[Intervention]:
    """The intervention called `name`; an unknown one raises an error with the nearest."""
    return _table()[check_choice("intervention", name, _table())]
