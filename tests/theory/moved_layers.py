"""Random layers and layers near them, for the bounds on how errors propagate, and hypothesis' ranges for them."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

FUNCTIONS = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": functional.relu,
    "silu": functional.silu,
    "gelu": functional.gelu,
}
ROUNDING = 1 + 1e-9

seeds = st.integers(0, 2**32 - 1)
widths = st.integers(2, 9)
logarithms = st.floats(-4, 1)
epsilons = st.sampled_from([0.0, 1e-6, 0.3])


def new_generator(seed: int) -> torch.Generator:
    """Of torch, on the CPU."""
    return torch.Generator().manual_seed(seed)


def draw(generator: torch.Generator, *shape: int) -> Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def nearby(generator: torch.Generator, tokens: Tensor, delta: float) -> Tensor:
    """Each token moved by exactly delta."""
    step = draw(generator, *tokens.shape)
    return tokens + delta * step / step.norm(dim=-1, keepdim=True)


def moved_by(generator: torch.Generator, matrix: Tensor, distance: float) -> Tensor:
    """A matrix, or each of a stack, moved by `distance` in spectral norm, all singular values alike or only one."""
    u, s, v = torch.linalg.svd(draw(generator, *matrix.shape), full_matrices=False)
    if torch.rand((), generator=generator) < 0.5:
        s[..., 1:] = 0
    return matrix + distance * (u * (s / s[..., :1]).ceil().unsqueeze(-2)) @ v


def normalised(u: Tensor, epsilon: float, centred: bool) -> Tensor:
    """An RMS norm of each token, or (`centred`) a layer norm, without a weight."""
    if centred:
        return functional.layer_norm(u, u.shape[-1:], eps=epsilon)
    return u / (u.square().mean(-1, keepdim=True) + epsilon).sqrt()
