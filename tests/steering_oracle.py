"""Steering done by hand: plain hooks on a base model, with a mask that the test writes out itself.

The tests compare adapters with it. It shares nothing with the tuner but the names of the hosts, whose meaning the
tests of sites establish: no cache, no policy, no context, and the shift is written with einsum.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from first_argument import replace_first_argument
from tiny_models import draw_adapters, steering_layers, tiny_model
from trimtab import SteeringConfig
from trimtab.sites import locate

SLIDING = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
MODELS: dict[str, dict[str, Any]] = {"llama": {}, "gpt2": {}, "gemma3_text": SLIDING, "mixtral": {}}
"""Families that differ in what matters for caches: rotary and learnt positions, windows, experts."""

POLICIES = ["all", "all_but_first(1)", "last_prompt", "first_last(2,1)", "generated"]
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def base_and_adapted(name: str, policy: str, site: str = "block") -> tuple[PreTrainedModel, Any]:
    """A base model and a copy of it with a random linear adapter."""
    config = SteeringConfig(r=3, site=site, positions=policy, task_type="CAUSAL_LM")
    adapted = get_peft_model(tiny_model(name, **MODELS.get(name, {})), config)
    draw_adapters(adapted)
    return tiny_model(name, **MODELS.get(name, {})), adapted.eval()


def selected(policy: str, prompt: int, left: int, columns: int, right: int = 0) -> list[bool]:
    """Which columns of a row are steered: `left` of padding, `prompt` tokens, `right` of padding, then generated ones.

    Padding counts as a column, is no token, and is steered by "all" only.
    """
    generated_count = columns - left - prompt - right
    if policy == "all_but_first(1)":
        return [False] * left + [token > 0 for token in range(prompt)] + [False] * right + [True] * generated_count
    first, last, generated = {
        "last_prompt": (0, 1, False),
        "first_last(2,1)": (2, 1, False),
        "generated": (0, 0, True),
        "all": (columns, columns, True),
    }[policy]
    row = [policy == "all"] * left
    row += [token < first or prompt - token <= last for token in range(prompt)]
    row += [policy == "all"] * right
    return row + [generated] * generated_count


@torch.no_grad()
def steered_logits(
    base: nn.Module,
    adapted: nn.Module,
    mask: Tensor,
    site: str = "block",
    adapter: str = "default",
    strength: float = 1.0,
    **inputs: Any,
) -> Tensor:
    """Logits of `base` in one pass without a cache, steered on `mask` (rows, columns) by the factors of `adapted`.

    `base` is an un-adapted copy of the model in `adapted`, whose adapter is linear without extras.
    """
    factors = [layer.steering_interventions[adapter] for layer in steering_layers(adapted)]
    handles = []
    for host, factor in zip(locate(base, site), factors, strict=True):
        down, up = factor.down.detach(), factor.up.detach()

        def shifted(h: Tensor, down: Tensor = down, up: Tensor = up) -> Tensor:
            rows = h.view(*mask.shape, -1)
            shift = torch.einsum("dr,rk,...k->...d", up, down, rows) * mask[..., None]
            return (rows + strength * shift).view(h.shape)

        module = base.get_submodule(host.module)
        if host.side == "output":
            handles.append(
                module.register_forward_hook(
                    lambda _, __, out, f=shifted: f(out) if isinstance(out, Tensor) else (f(out[0]), *out[1:])
                )
            )
        else:
            handles.append(replace_first_argument(module, shifted))
    try:
        return base(use_cache=False, **inputs).logits
    finally:
        for handle in handles:
            handle.remove()


def positions_of(attention_mask: Tensor) -> Tensor:
    """The position of each token in its row, padding not counted (and itself at 0)."""
    return (attention_mask.long().cumsum(1) - 1).clamp(min=0)
