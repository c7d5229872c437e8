"""What one linear map reaches of dW_d y, in front of an MLP and behind it, at the size of a model (3.2, takeaway 1)."""

from __future__ import annotations

import sys
from typing import Any

import torch
from _limited_least_squares import LimitedLeastSquares
from _theory_layers import MlpWithNorms, down_projection_term
from torch import Tensor

from trimtab.linalg import relative_error
from trimtab.theory.first_order import mlp_output, steering_shift
from trimtab.theory.post_block import best_linear_map

LINEAR_SHARES = (0.003, 0.01, 0.03, 0.1)
"""How long dh may be, as a share of the length of h, in root mean squares over tokens."""
_BLOCK, _UNSEEN_EVERY = 32, 8
"""Every eighth stretch of 32 tokens is not fitted to: single tokens would be too much like their neighbours."""
_STEPS, _CHECKED_EVERY = 60, 10
"""Of conjugate gradients: at most, and between two looks at whether they may stop."""
_GAP = 0.01
"""Between what is missed and what provably must be, at the largest of LINEAR_SHARES, where they stop early."""


class LinearSteering:
    """dh_i = A h_i, which shifts the MLP's output by J(h_i) A h_i to first order, as a linear function of A.

    A is given as B = A V S with the singular value decomposition h = Q S V^T: dh_i = B q_i. These q are the whitened
    tokens, so that ||B||^2 = sum_i ||dh_i||^2: what conjugate gradients take for the length of their unknown is the
    length of the steering. Directions in which no token lies are left out (a norm may scale a number to zero).

    Args:
        layer: whose MLP is steered.
        h: what it reads (n, d).

    Raises:
        ValueError: not more tokens than the stream is wide, so that a linear map fits anything.
    """

    def __init__(self, layer: MlpWithNorms, h: Tensor) -> None:
        if h.shape[0] <= h.shape[1]:
            raise ValueError(
                f"{h.shape[0]} tokens are not more than the stream's {h.shape[1]} numbers: raise --tokens."
            )
        self._layer = layer
        q, sizes, directions = torch.linalg.svd(h, full_matrices=False)
        kept = sizes > max(h.shape) * torch.finfo(h.dtype).eps * sizes[0]  # the usual tolerance of a rank
        self._q, self._whitening = q[:, kept], directions[kept].T / sizes[kept]
        # J(h) dh is linear in dh: its transpose is the same wherever it is taken, and the transpose of that is J(h)
        # again, which keeps what steering_shift computes anew of h.
        nothing = torch.zeros_like(h)
        _, self._pull = torch.func.vjp(lambda dh: self._shift(h, dh), nothing)
        _, self._push = torch.func.vjp(lambda pulled: self._pull(pulled)[0], nothing)

    def steering(self, b: Tensor, h: Tensor) -> Tensor:
        """dh of tokens, also of others than those that B was fitted to."""
        return h @ self._whitening @ b.T

    def shift(self, b: Tensor, h: Tensor) -> Tensor:
        """J(h_i) A h_i."""
        return self._shift(h, self.steering(b, h))

    def best(self, target: Tensor, steps: int) -> LimitedLeastSquares:
        """The problem of the B whose shift is nearest to the target (n, d), in sum of squares over the tokens."""
        forward = lambda b: self._push(self._q @ b.T)[0]  # noqa: E731
        transposed = lambda shift: self._pull(shift)[0].T @ self._q  # noqa: E731
        return LimitedLeastSquares(forward, transposed, target, steps)

    def _shift(self, h: Tensor, dh: Tensor) -> Tensor:
        return steering_shift(h, dh, self._layer.weights, self._layer.activation)


def linear_reach(layer: MlpWithNorms) -> dict[str, Any]:
    """How much of the dW_d y of `reach` one linear map misses on the texts, in front of the MLP and behind it.

    Lengths are root mean squares over tokens, the first of the texts left out.

    Returns:
        in_front: for each of LINEAR_SHARES, the largest length of dh in lengths of h: `missed`, the relative error in
            the formula, in the MLP, and in the formula on tokens that the map was not fitted to; `at_least`, what
            every linear map within the limit misses on the tokens fitted to; `length` of the dh, which is below the
            limit where none was found that uses more, and `median_length`, the median of ||dh|| / ||h||.
        behind: the relative error of the best linear map of the MLP's output, and that on the unseen tokens.
        steps: of conjugate gradients.
        samples: tokens fitted to, and unseen ones.
    """
    everything = layer.h[1:]
    targets = down_projection_term(layer, everything)
    is_unseen = torch.arange(len(everything)) // _BLOCK % _UNSEEN_EVERY == _UNSEEN_EVERY - 1
    h, target, unseen, unseen_target = (
        everything[~is_unseen],
        targets[~is_unseen],
        everything[is_unseen],
        targets[is_unseen],
    )
    steering = LinearSteering(layer, h)
    problem = steering.best(target, _STEPS)
    limits = {share: share * h.norm().item() for share in LINEAR_SHARES}
    while problem.steps < _STEPS and not problem.exhausted:
        problem.extend(_CHECKED_EVERY)
        found = problem.solve(limits[LINEAR_SHARES[-1]])
        print(f"  step {problem.steps}: {found.at_least:.4f} to {found.missed:.4f}", file=sys.stderr)
        if found.missed - found.at_least < _GAP:
            break
    in_front = {}
    for share, limit in limits.items():
        found = problem.solve(limit)
        dh = steering.steering(found.solution, h)
        moved = (layer.mlp(h + dh) - layer.mlp(h)).detach()
        in_front[str(share)] = {
            "missed": [
                relative_error(steering.shift(found.solution, h), target).item(),
                relative_error(moved, target).item(),
                relative_error(steering.shift(found.solution, unseen), unseen_target).item(),
            ],
            "at_least": found.at_least,
            "length": (dh.norm() / h.norm()).item(),
            "median_length": (dh.norm(dim=-1) / h.norm(dim=-1)).median().item(),
        }
    return {
        "in_front": in_front,
        "behind": _behind(layer, (h, target), (unseen, unseen_target)),
        "steps": problem.steps,
        "samples": [len(h), len(unseen)],
    }


def _behind(layer: MlpWithNorms, seen: tuple[Tensor, Tensor], unseen: tuple[Tensor, Tensor]) -> list[float]:
    """What the best linear map of the MLP's output misses of the target: seen tokens, unseen ones."""
    outputs = [mlp_output(h, layer.weights, layer.activation).T for h, _ in (seen, unseen)]
    fitted = best_linear_map(outputs[0], seen[1].T)
    return [
        relative_error(fitted @ output, target.T).item()
        for output, (_, target) in zip(outputs, (seen, unseen), strict=True)
    ]
