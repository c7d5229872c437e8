"""Tiny models whose adapters have a penalty."""

from __future__ import annotations

import torch
from peft import PeftModel, get_peft_model

from tiny_language import tiny_model
from tiny_models import steering_layers
from trimtab import SteeringConfig

COEFFICIENT = 0.25
IDS = torch.arange(3, 27).view(2, 12)


def adapted(coefficient: float | None = COEFFICIENT, method: str = "head_scale", seed: int = 0) -> PeftModel:
    """A tiny model with LoFiT's scalers, or another method on heads, at its published start."""
    base = tiny_model()
    torch.manual_seed(seed)
    return get_peft_model(
        base, SteeringConfig(intervention=method, site="heads", penalty=coefficient, task_type="CAUSAL_LM")
    )


def scalers(model: PeftModel) -> torch.Tensor:
    """A of all heads, (layers, heads, head_dim)."""
    return torch.stack([layer.intervention("default").scale.detach().clone() for layer in steering_layers(model)])
