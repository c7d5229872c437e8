"""Tiny models whose attention heads are steered."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tiny_models import token_ids
from trimtab import SteeringConfig

IDS = token_ids(2, 7)
METHODS = ["head_scale", "head_bias", "jola"]
each_method = pytest.mark.parametrize("method", METHODS)


def heads_config(method: str, **options: Any) -> SteeringConfig:
    """An adapter on heads, all of them unless told otherwise."""
    return SteeringConfig(intervention=method, site="heads", task_type="CAUSAL_LM", **options)


def logits(model: Any) -> torch.Tensor:
    """The logits of IDS."""
    with torch.no_grad():
        return model(input_ids=IDS).logits
