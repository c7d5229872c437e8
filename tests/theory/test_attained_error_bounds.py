"""Layers for which the bounds of appendix E lose nothing: each term of them is needed, and none can be smaller."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.testing import assert_close

from theory.moved_layers import normalised
from trimtab.theory.error_propagation import (
    ACTIVATION_CONSTANTS,
    AttentionWeights,
    attention_error_bound,
    mlp_error_bound,
)
from trimtab.theory.first_order import MlpWeights

U = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
ONE = torch.eye(2, dtype=torch.float64)
LARGE = 1e4
"""The stream's own movement is then a ten-thousandth of what the layer makes of it."""
LOSS = 1.001
SHARE = 0.3


def _moved_to_the_tangent() -> tuple[Tensor, float]:
    """u' for which the norm's bound (E.1) is attained, and its distance from U."""
    delta = SHARE * U.norm().item()
    across = torch.tensor([[-0.8, 0.6]], dtype=torch.float64)
    moved = (1 - SHARE**2) * U + delta * math.sqrt(1 - SHARE**2) * across
    assert_close((moved - U).norm().item(), delta)
    return moved, delta


def _is_attained(bound: Tensor, actual: Tensor) -> bool:
    return bool(actual <= bound <= LOSS * actual)


def test_the_mlps_bound_is_attained_where_only_the_stream_moves() -> None:
    """With W_g = 0 and a sigmoid the MLP is W_d norm(u) / 2: the norm's error passes through W_u and W_d in full."""
    moved, delta = _moved_to_the_tangent()
    block = lambda u: u + LARGE * normalised(u, 0.0, centred=False) / 2  # noqa: E731
    weights = MlpWeights(up=ONE, down=LARGE * ONE, gate=0 * ONE)
    bound = mlp_error_bound(U, delta, weights, 0.0, ACTIVATION_CONSTANTS["sigmoid"])
    assert _is_attained(bound[0], (block(U) - block(moved)).norm())


def test_a_silent_mlp_passes_the_streams_error_on() -> None:
    """With W_d = 0, the same in both models, the skip-connection is left: each token is as far away as before."""
    u, delta = torch.cat([U, 10 * U]), torch.tensor([0.1, 0.4], dtype=torch.float64)
    bound = mlp_error_bound(u, delta, MlpWeights(ONE, 0 * ONE, ONE), 0.0, ACTIVATION_CONSTANTS["silu"])
    assert_close(bound, delta)


def test_silent_attention_passes_the_largest_error_of_the_stream_on() -> None:
    """With W_v = 0 the skip-connection is left, and the bound is for every token: that of the farthest."""
    heads = torch.stack([ONE, ONE])
    delta = torch.tensor([0.1, 0.4], dtype=torch.float64)
    weights = AttentionWeights(heads, heads, 0 * heads, torch.cat([ONE, ONE], dim=1))
    bound = attention_error_bound(torch.cat([U, 10 * U]), delta, weights, 0.0, scale=1.0)
    assert_close(bound.item(), 0.4)


def test_the_attentions_bound_is_attained_by_the_shortest_token() -> None:
    """A token that attends to itself alone, two heads of the same values: beside a longer token its norm moves most."""
    moved, delta = _moved_to_the_tangent()
    heads, output = torch.stack([ONE, ONE]), torch.cat([ONE, ONE], dim=1)
    weights = AttentionWeights(0 * heads, 0 * heads, LARGE * heads, output)

    def first_token(u: Tensor) -> Tensor:
        value = LARGE * normalised(u, 0.0, centred=False)
        return u + torch.cat([value, value], dim=-1) @ output.T

    bound = attention_error_bound(torch.cat([U, 10 * U]), delta, weights, 0.0, scale=1.0)
    assert _is_attained(bound, (first_token(U) - first_token(moved)).norm())
