"""The low-rank update as einsum writes it in float64, and random arguments of it."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from trimtab.interventions.activations import ACTIVATIONS
from trimtab.interventions.low_rank_update import EPSILON

D, R = 12, 3
ACTIVATION = {
    None: lambda y: y,
    "silu": lambda y: y / (1 + torch.exp(-y)),
    "gelu": lambda y: 0.5 * y * (1 + torch.erf(y / 2**0.5)),
    "relu": lambda y: torch.clamp(y, min=0),
    "tanh": torch.tanh,
}
each_grad_mode = pytest.mark.parametrize("gradients", [True, False], ids=["training", "decoding"])
CHOICES = list(product([None, *sorted(ACTIVATIONS)], [False, True], [False, True], [False, True]))


def reference(
    h: Tensor,
    down: Tensor,
    up: Tensor,
    bias: Tensor | None,
    *,
    strength: float,
    tokens: Tensor | None,
    activation: str | None,
    normalize: bool,
    inner_bias: Tensor | None = None,
    linear_rank: int = 0,
) -> Tensor:
    """h + s m (W_up f(W_down x + c) + b), in float64, token by token as the paper writes it."""
    h, down, up = h.double(), down.double(), up.double()
    x = h / torch.sqrt(torch.einsum("...d,...d->...", h, h) / h.shape[-1] + EPSILON)[..., None] if normalize else h
    y = torch.einsum("rd,...d->...r", down, x)
    if inner_bias is not None:
        y = y + inner_bias.double()
    curved = torch.arange(len(down)) < len(down) - linear_rank
    shift = torch.einsum("dr,...r->...d", up, torch.where(curved, ACTIVATION[activation](y), y))
    if bias is not None:
        shift = shift + bias.double()
    if tokens is not None:
        shift = torch.where(tokens[..., None], shift, torch.zeros_like(shift))
    return h + strength * shift


def factors(bias: bool, dtype: torch.dtype = torch.float64, shape: tuple[int, ...] = (2, 5)) -> list[Any]:
    """h, W_down, W_up and b, drawn at random; h away from the kink of relu."""
    drawn = [torch.randn(*shape, D), torch.randn(R, D), torch.randn(D, R), torch.randn(D) if bias else None]
    return [None if t is None else t.to(dtype) for t in drawn]


def some_tokens(shape: tuple[int, ...] = (2, 5)) -> Tensor:
    """A mask with steered and unsteered tokens in each row."""
    return torch.arange(shape[0] * shape[1]).view(shape) % 3 != 1
