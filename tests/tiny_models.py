"""Tiny random causal models for the tests of adapters; their families are those of the tests of sites."""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sites.site_models import FAMILIES
from sites.site_models import tiny_model as build
from trimtab.tuners.steering import SteeringLayer

__all__ = ["FAMILIES", "assert_same", "draw_adapters", "fingerprint", "steering_layers", "tiny_model", "token_ids"]


def tiny_model(name: str = "llama", **changes: Any) -> PreTrainedModel:
    """A new tiny model in float32 and evaluation mode; the same name and changes give the same weights."""
    return copy.deepcopy(_built(name, json.dumps(changes, sort_keys=True)))


@cache
def _built(name: str, changes: str) -> PreTrainedModel:
    return build(name, **json.loads(changes))


def token_ids(rows: int, columns: int, seed: int = 0) -> Tensor:
    """(rows, columns) tokens without the special ones (0 to 2) of the tiny configs."""
    return torch.randint(3, 61, (rows, columns), generator=torch.Generator().manual_seed(seed))


def steering_layers(model: nn.Module) -> list[SteeringLayer]:
    """The steering layers of a model, in the order of its modules."""
    return [module for module in model.modules() if isinstance(module, SteeringLayer)]


def draw_adapters(model: nn.Module, seed: int = 0, scale: float = 0.3) -> None:
    """Random parameters for every adapter of a model, so that none is a no-op."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in steering_layers(model):
            for parameter in layer.parameters():
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))


def fingerprint(model: nn.Module, trainable: bool = True) -> dict[str, Any]:
    """All that an adapter might leave behind in a model: keys, values, hooks, attributes, flags.

    Args:
        model: a base model.
        trainable: count which parameters are trainable too, which `unload` does not restore.
    """
    found: dict[str, Any] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name, module in model.named_modules():
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        always = getattr(module, "_forward_hooks_always_called", {})
        found[f"{name} is"] = (type(module), module.training, *map(len, hooks), len(always))
        found[f"{name} has"] = sorted(module.__dict__)
    if trainable:
        found |= {f"{name} trains": parameter.requires_grad for name, parameter in model.named_parameters()}
    return found


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Two fingerprints agree; the message names what does not."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        same = torch.equal(value, other[name]) if isinstance(value, Tensor) else value == other[name]
        assert same, f"{name}: {value} became {other[name]}"
