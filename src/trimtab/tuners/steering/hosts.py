"""What steering must know of a model and of a host module in it: its sizes, its doors, a bias that it ends in."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from trimtab.sites import decoder_layers, locate
from trimtab.sites.base import Host

WIDTH_ATTRIBUTES = ("out_features", "nf", "embedding_dim", "hidden_size", "embed_dim")
"""Where modules of torch and transformers say how wide their output is."""

ADDING_THEIR_BIAS_LAST = (nn.Linear, Conv1D, nn.LayerNorm)


def base_facts(model: nn.Module) -> dict[str, Any]:
    """What of a transformers model an adapter depends on; empty for other networks."""
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "get_text_config"):
        return {}
    text = config.get_text_config()
    names = ("model_type", "hidden_size", "num_hidden_layers")
    return {name: getattr(text, name) for name in names if hasattr(text, name)}


def backbone(model: nn.Module) -> nn.Module:
    """The module that is called with ids, mask and cache: the parent of the decoder layers, or the model."""
    try:
        name, _ = decoder_layers(model)
    except ValueError:
        return model
    return model.get_submodule(name.rpartition(".")[0])


def output_width(module: nn.Module, name: str) -> int:
    """The last dimension of a module's output, for `target_modules`.

    Raises:
        ValueError: the module does not say it.
    """
    for attribute in WIDTH_ATTRIBUTES:
        if isinstance(width := getattr(module, attribute, None), int):
            return width
    shape = getattr(module, "normalized_shape", None)
    if shape:
        return int(shape[-1])
    weight = getattr(module, "weight", None)
    if weight is not None and weight.dim() == 1:
        return len(weight)  # the RMS norms of transformers
    config = getattr(module, "config", None)
    if isinstance(width := getattr(config, "hidden_size", None), int):
        return width
    if isinstance(module, nn.Sequential) and len(module):
        return output_width(module[-1], f"{name}.{len(module) - 1}")
    raise ValueError(
        f"Cannot steer {name!r}: a {type(module).__name__} does not say how wide the last dimension of its output is. "
        f"Target a module that has one of {', '.join(WIDTH_ATTRIBUTES)}, such as a Linear or a norm."
    )


def bias_owner(model: nn.Module, target: nn.Module, host: Host | None, site: str) -> nn.Module | None:
    """The module whose bias is a summand of the steered tensor, which can take a constant shift; None if none is.

    A linear layer and a norm add their own. Attention ends in the projection that reads the heads, the MLP of a
    family in its last linear layer, and the block's output contains the MLP's. Of other modules nobody knows
    what they do after their last bias.
    """
    if host is None:
        return target.out_proj if isinstance(target, nn.MultiheadAttention) else _with_own_bias(target)
    if host.side == "input" or host.multiplier != 1.0:
        return None
    if site == "block":
        if getattr(target, "do_layer_norm_before", True) is False:
            return None  # OPT-350M normalises the sum
        (host,) = locate(model, "mlp", [host.layer])
        target = model.get_submodule(host.module)
    if isinstance(_unwrapped(target), ADDING_THEIR_BIAS_LAST):
        return _with_own_bias(target)
    if site == "attention":
        (heads,) = locate(model, "heads", [host.layer])
        return _with_own_bias(model.get_submodule(heads.module))
    linear = [child for child in target.children() if isinstance(_unwrapped(child), nn.Linear | Conv1D)]
    owner = _with_own_bias(linear[-1]) if linear else None
    return owner if owner is not None and output_width(owner, host.module) == host.width else None


def _with_own_bias(module: nn.Module) -> nn.Module | None:
    """The module without PEFT's wrappers, if it is known to add its bias last and has one."""
    module = _unwrapped(module)
    known = isinstance(module, ADDING_THEIR_BIAS_LAST)
    return module if known and isinstance(module.bias, nn.Parameter) else None


def _unwrapped(module: nn.Module) -> nn.Module:
    while isinstance(inner := getattr(module, "base_layer", None), nn.Module):
        module = inner
    return module
