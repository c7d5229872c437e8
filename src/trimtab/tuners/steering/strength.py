"""The strength dial: s in h <- h + s * shift(h), per adapter, at any time, without reloading."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peft.tuners.lora import LoraLayer
from torch import nn

from trimtab.registry import check_choice
from trimtab.tuners.steering.layer import SteeringLayer


def get_strengths(model: nn.Module) -> dict[str, float]:
    """The strength of every steering adapter of a model, by name."""
    return {name: value for layer in _layers(model) for name, value in layer.strengths.items()}


def set_strength(model: nn.Module, value: float, adapter_name: str | None = None) -> None:
    """Turn the dial of one adapter, or of all active ones. Of a joint adapter it scales both halves.

    0 is the base model bit for bit, 1 the adapter as trained; other values, negative ones too, are allowed. An
    adapter that is saved afterwards keeps the value as its `strength`.

    Args:
        model: a model with steering adapters (a PeftModel or a transformers model).
        value: the strength.
        adapter_name: which adapter; None means the active ones.

    Raises:
        ValueError: the value is not finite, the model has no steering adapter, or none of this name.
    """
    if not math.isfinite(value):
        raise ValueError(f"The strength {value!r} must be a finite number.")
    known = get_strengths(model)
    if not known:
        raise ValueError("The model has no steering adapter.")
    if adapter_name is not None:
        check_choice("adapter", adapter_name, known)
    configs = _configs(model)
    turned = [
        (layer, name)
        for layer in _layers(model)
        for name in (layer.active_adapters if adapter_name is None else [adapter_name])
        if name in layer.strengths
    ]
    for layer, name in turned:  # before anything is
        if name in layer.merged_adapters:
            raise ValueError(f"The adapter {name!r} is merged into the base; unmerge it to turn its dial.")
    names = _active(model) if adapter_name is None else [adapter_name]
    joint = [name for name in names if getattr(configs.get(name), "lora", None) is not None]
    for name in joint:
        _unmerged_lora(model, name)
    for name in joint:
        scale_lora(model, name, value)
    for layer, name in turned:
        layer.strengths[name] = float(value)
        if name in configs and configs[name].strength != value:
            # A copy: the caller's configuration may serve several adapters.
            configs[name] = copy.copy(configs[name])
            configs[name].strength = float(value)


@contextmanager
def strength(model: nn.Module, value: float, adapter_name: str | None = None) -> Iterator[None]:
    """Turn the dial for the time of a `with` block; arguments as in `set_strength`."""
    names = _active(model) if adapter_name is None else [adapter_name]
    before = {name: old for name, old in get_strengths(model).items() if name in names}
    set_strength(model, value, adapter_name)
    try:
        yield
    finally:
        for name in before.keys() & get_strengths(model).keys():  # one may have been deleted meanwhile
            set_strength(model, before[name], name)


def scale_lora(model: nn.Module, adapter_name: str, value: float) -> None:
    """Multiply the LoRA half of a joint adapter, (alpha / r) B A, by `value`.

    Raises:
        ValueError: it is merged into the weights.
    """
    for layer in _unmerged_lora(model, adapter_name):
        layer.set_scale(adapter_name, value)  # does nothing where there is no such adapter


def _unmerged_lora(model: nn.Module, adapter_name: str) -> list[LoraLayer]:
    layers: list[LoraLayer] = [module for module in model.modules() if isinstance(module, LoraLayer)]
    if any(adapter_name in layer.merged_adapters for layer in layers):
        raise ValueError(f"The LoRA half of {adapter_name!r} is merged into the base; unmerge it to turn its dial.")
    return layers


def _configs(model: nn.Module) -> dict[str, Any]:
    """The configurations by name, of a model that may be inside another (DistributedDataParallel)."""
    found: Iterator[Any] = (module.peft_config for module in model.modules() if hasattr(module, "peft_config"))
    return next(found, {})


def _active(model: nn.Module) -> set[str]:
    return {name for layer in _layers(model) for name in layer.active_adapters}


def _layers(model: nn.Module) -> list[SteeringLayer]:
    return [module for module in model.modules() if isinstance(module, SteeringLayer)]
