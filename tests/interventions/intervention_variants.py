"""Every registered intervention with every option that it knows, and a stream for them to steer.

What it reads is asked of its `uses`: a new intervention is among them by its file alone.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch

from trimtab.interventions import Intervention, InterventionOptions, get_intervention, intervention_names
from trimtab.interventions.activations import ACTIVATIONS
from trimtab.interventions.base import Heads

WIDTH = 16
"""Of the stream."""
CHOICES: dict[str, list[Any]] = {
    "activation": [None, *sorted(ACTIVATIONS)],
    "bias": [False, True],
    "normalize": [False, True],
    "heads": [None, Heads(layer=2, count=4, selected=(1, 3), total=5)],
}
"""The values of each option, all with all."""
EXTREMES = [{"rank": 1}, {"rank": WIDTH}]
"""Options that are tried alone."""


def variants() -> list[Any]:
    """Each intervention with each combination of the options that it reads, and with the extreme ranks."""
    found = []
    for name in intervention_names():
        uses = get_intervention(name).uses
        used = [field for field in CHOICES if field in uses]
        options = [dict(zip(used, values, strict=True)) for values in product(*map(CHOICES.get, used))]
        for chosen in options + [extreme for extreme in EXTREMES if extreme.keys() <= uses]:
            text = "-".join(f"{field}={value}" for field, value in chosen.items())
            found.append(pytest.param(name, chosen, id=f"{name}-{text}"))
    return found


def build(name: str, options: dict[str, Any], **more: Any) -> Intervention:
    """An intervention for a stream of WIDTH numbers, in evaluation mode: gates are not drawn at random."""
    return get_intervention(name)(WIDTH, InterventionOptions(**{"rank": 4, **options, **more})).eval()


def stream(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """(3 rows, 5 tokens, WIDTH)."""
    return torch.randn(3, 5, WIDTH).to(dtype)


TOKENS = torch.arange(15).view(3, 5) % 2 == 0
"""(3 rows, 5 tokens): every other one is steered."""
each_variant = pytest.mark.parametrize(("name", "options"), variants())
"""Runs a test of `name` and `options` on every variant."""
each_noop = pytest.mark.parametrize(
    ("name", "options"), [each for each in variants() if get_intervention(each.values[0]).starts_as_noop]
)
"""The same, on those that change nothing at their start."""
