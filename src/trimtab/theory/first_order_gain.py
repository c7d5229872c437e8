"""How far can a low-rank map at a site lower the loss, to first order? This library's, not the paper's.

A shift M x of the hidden states at a site changes the loss by <G, M> + O(||M||^2), where

    G = sum over tokens of (dloss/dh) x^T = dloss/dM at M = 0,      <G, M> = trace(G^T M)

Von Neumann's trace inequality: -<G, M> <= sum_i s_i(G) s_i(M), with equality when M = -U diag(s(M)) V^T has the
singular vectors of G = U S V^T. A map of rank r has r singular values, so the largest fall of the loss is

    ||M||_2 <= 1 ("spectral"):     s_1 + ... + s_r              at M = -U_r V_r^T             (Ky Fan's r-norm of G)
    ||M||_F <= 1 ("frobenius"):    sqrt(s_1^2 + ... + s_r^2)    at M = -U_r S_r V_r^T / sqrt(s_1^2 + ... + s_r^2)

In the first ball every direction may be written with the same length, so that ||M x|| <= ||x|| on every token; in the
second one all directions share one length.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from trimtab.registry import check_choice

BALLS = ("spectral", "frobenius")


def first_order_gain(
    singular_values: Float[Tensor, "*batch k"], rank: int, ball: str = "spectral"
) -> Float[Tensor, "*batch"]:
    """max of -<G, M> over maps M of rank at most `rank` whose norm is at most 1.

    Args:
        singular_values: of G, the largest first; `rank` of them at least.
        rank: r.
        ball: whose norm: "spectral" or "frobenius".

    Raises:
        ValueError: an unknown ball, or a rank below 1 or above the number of singular values.
    """
    check_choice("ball", ball, BALLS)
    if not 1 <= rank <= singular_values.shape[-1]:
        raise ValueError(f"The rank {rank} must lie between 1 and {singular_values.shape[-1]}.")
    leading = singular_values[..., :rank]
    return leading.sum(-1) if ball == "spectral" else torch.linalg.vector_norm(leading, dim=-1)


def steepest_map(gradient: Float[Tensor, "d e"], rank: int, ball: str = "spectral") -> Float[Tensor, "d e"]:
    """The map of rank `rank` and norm 1 that attains `first_order_gain`.

    Args:
        gradient: G.
        rank: r.
        ball: whose norm is 1.

    Raises:
        ValueError: as `first_order_gain`; or G is zero, so that no map lowers the loss.
    """
    left, s, right = torch.linalg.svd(gradient, full_matrices=False)
    gain = first_order_gain(s, rank, ball)
    if gain == 0:
        raise ValueError("The gradient is zero: to first order no map changes the loss.")
    lengths = torch.ones_like(s[:rank]) if ball == "spectral" else s[:rank] / gain
    return -(left[:, :rank] * lengths) @ right[:rank]
