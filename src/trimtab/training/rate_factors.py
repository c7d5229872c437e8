"""Learning rates that differ by parameter: the factors of a method, as groups of its optimiser."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from trimtab.methods import Method
from trimtab.registry import check_choice

FACTOR = "rate_factor"
"""The key under which a group of the optimiser holds its factor."""


def require_parameters(trained: Iterable[str], method: Method) -> None:
    """Refuse a factor for what is not among the names of the `trained` parameters.

    A parameter that the method's shift has with other options may be named: `use_bias=False` alone leaves a method
    whose bias has a factor valid.

    Raises:
        ValueError: the factor's name is part of none of them; with the nearest part.
    """
    parts = {part for name in trained for part in name.split(".") if not part.isdigit()} | method.shift_parameters
    for name in method.rate_factors:
        check_choice("parameter in rate_factors", name, sorted(parts))


def split_by_rate(
    groups: Iterable[Mapping[str, Any]], parameters: Mapping[str, nn.Parameter], factors: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Groups of an optimiser, each split into those of one learning rate: the group's own times a factor.

    A factor is for every parameter whose name has it as a part: "up" for "layers.0.up" and not for "up_proj". Where
    several match, their product counts; where none does, the factor is 1, and that part of a group comes first.

    Args:
        groups: with "params", "lr" and whatever else the optimiser takes.
        parameters: all parameters by name.
        factors: by part of a name.
    """
    names = {id(parameter): name.split(".") for name, parameter in parameters.items()}
    split = []
    for group in groups:
        members: dict[float, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            factor = 1.0
            for part in names[id(parameter)]:
                factor *= factors.get(part, 1.0)
            members.setdefault(factor, []).append(parameter)
        for factor in sorted(members, key=lambda each: (each != 1.0, each)):
            split.append({**group, "params": members[factor], "lr": group["lr"] * factor, FACTOR: factor})
    return split
