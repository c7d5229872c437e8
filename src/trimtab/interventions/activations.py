"""The elementwise functions f of a nonlinear low-rank shift, each with its derivative.

The derivative is written out because the update's backward pass is our own (`low_rank_update.py`); the test
compares it with autograd in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from trimtab.registry import check_choice


class Activation(NamedTuple):
    """f and f', both elementwise."""

    value: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]


def _silu_derivative(y: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    gate = torch.sigmoid(y)
    return gate * (1 + y * (1 - gate))


def _gelu_derivative(y: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    density = torch.exp(-0.5 * y * y) / math.sqrt(2 * math.pi)
    return torch.special.ndtr(y) + y * density


def _relu_derivative(y: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return (y > 0).to(y.dtype)


def _tanh_derivative(y: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return 1 - torch.tanh(y).square()


ACTIVATIONS: dict[str, Activation] = {
    "silu": Activation(torch.nn.functional.silu, _silu_derivative),
    "gelu": Activation(torch.nn.functional.gelu, _gelu_derivative),
    "relu": Activation(torch.nn.functional.relu, _relu_derivative),
    "tanh": Activation(torch.tanh, _tanh_derivative),
}


def get_activation(name: str | None) -> Activation | None:
    """The activation called `name`; None stands for the identity, an unknown name raises."""
    return None if name is None else ACTIVATIONS[check_choice("activation", name, ACTIVATIONS)]
