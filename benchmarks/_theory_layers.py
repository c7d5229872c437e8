"""One MLP of a model: what steering in front of it reaches, what a post-block map misses."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trimtab.linalg import relative_error
from trimtab.theory.first_order import down_projection_shift, steering_jacobian
from trimtab.theory.post_block import angle_bounds, linear_map_error, linear_map_error_by_angles
from trimtab.theory.reachability import free_pre_mlp_steering

# The tests check how a layer is read, and the same slopes on a tiny model: one reading for both.
sys.path.append(str(Path(__file__).parents[1] / "tests"))
from theory.model_layers import MlpWithNorms, first_order_slopes, mlp_with_norms

__all__ = [
    "SHARES",
    "TEXT",
    "MlpWithNorms",
    "down_projection_term",
    "first_order_slopes",
    "mlp_with_norms",
    "post_block",
    "reach",
]

TEXT = "The capital of France is Paris. It lies on the river Seine, and two million people live there."
SHARES = (0.01, 0.03, 0.1)
"""How long dh may be, as a share of the length of h."""
_UPDATE = 0.01
"""||dW_d|| / ||W_d||."""
_EVERY = 3
"""Of the sentence's tokens: a singular value decomposition each is what this takes its time for."""


def down_projection_term(layer: MlpWithNorms, h: Tensor) -> Tensor:
    """dW_d y for tokens h, dW_d a random direction of 1 % of W_d: with the same seed the same for any tokens."""
    drawn = torch.randn_like(layer.weights.down)
    update = _UPDATE * drawn * layer.weights.down.norm() / drawn.norm()
    return down_projection_shift(h, layer.weights, update, layer.activation)


def reach(layer: MlpWithNorms) -> dict[str, Any]:
    """How much of dW_d y steering in front of the MLP reaches, dW_d a random direction of 1 % of W_d.

    The first token of the sentence, which carries massive activations, is left out.

    Returns:
        condition: of J(h), the median over tokens.
        exact_length: ||dh|| / ||h|| of the shortest dh that reaches all to first order, the median.
        missed: for each of SHARES, the relative error of the best dh of that length, in the formula and in the MLP.
    """
    h, weights = layer.h[1::_EVERY], layer.weights
    target = down_projection_term(layer, h)
    jacobians = steering_jacobian(h, weights, layer.activation)
    singular, length = torch.linalg.svdvals(jacobians), h.norm(dim=-1)
    exact, _ = free_pre_mlp_steering(jacobians, target)
    missed = {}
    for share in SHARES:
        dh, error = free_pre_mlp_steering(jacobians, target, share * length)
        moved = (layer.mlp(h + dh) - layer.mlp(h)).detach()
        missed[str(share)] = [error.item(), relative_error(moved, target).item()]
    return {
        "condition": _median(singular[:, 0] / singular[:, -1]),
        "exact_length": _median(exact.norm(dim=-1) / length),
        "missed": missed,
    }


def post_block(layer: MlpWithNorms) -> dict[str, Any]:
    """What the best post-block map misses of a random linear post-MLP steering T = A G (theorem 3.1).

    Raises:
        ValueError: not more tokens than the stream is wide, so that a linear map fits anything.
    """
    added, stream = layer.added(layer.h)[1:].T, layer.u[1:].T
    block = stream + added
    width, samples = block.shape
    if samples <= width:
        raise ValueError(f"{samples} tokens are not more than the stream's {width} numbers: raise --tokens.")
    target = torch.randn(width, width, dtype=torch.float64) @ added
    return {
        "error": linear_map_error(block, target).item(),
        "error_by_angles": linear_map_error_by_angles(block, target).item(),
        "angle_bounds": [bound.item() for bound in angle_bounds(block, target)],
        "share": _median(added.norm(dim=0) / block.norm(dim=0)),
        "samples": samples,
    }


def _median(values: Tensor) -> float:
    return values.median().item()
