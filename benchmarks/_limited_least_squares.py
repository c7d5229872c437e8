"""min ||t - M b||^2 over ||b|| <= limit for a linear M that is too large to write down, at every limit at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_HALVINGS = 200
"""Of the interval of log lambda: more than a float64 has digits."""
_DUALS = 60
"""Residuals that are tried as a proof."""
_NOTHING = 1e-14
"""What rounding leaves of a number of size 1: below, a Krylov space is exhausted and an eigenvalue is zero."""


@dataclass(frozen=True)
class Limited:
    """The best b that was found for a limit, and bounds on what the best of all misses.

    Attributes:
        solution: b, with ||b|| <= limit.
        missed: ||t - M b||^2 / ||t||^2: no less is missed than `at_least` and the best misses no more than this.
        at_least: what every b within the limit misses, by duality; of no use (0) for an infinite limit.
    """

    solution: Tensor
    missed: float
    at_least: float


class LimitedLeastSquares:
    """Conjugate gradients on (M^T M + lambda) b = M^T t for all lambda >= 0 from one Krylov space.

    The Lanczos process gives V with orthonormal columns v_1 = M^T t / ||M^T t||, ..., v_k, and M^T M V = [V, v_k+1] T
    with a tridiagonal T (k + 1, k). The k-th step of conjugate gradients is then b = V y with
    (T_k + lambda) y = ||M^T t|| e_1, T_k the upper square of T, and ||b|| = ||y||. So neither the search for the
    lambda of a limit nor another limit needs M again. V is kept and each v made orthogonal to all before it:
    without that conjugate gradients lose their way where M is badly conditioned, as J(h) is.

    A residual r proves that every b with ||b|| <= limit has ||t - M b||^2 >= 2 <t, r> - ||r||^2 - 2 limit ||M^T r||,
    since ||t - M b||^2 >= 2 <t - M b, r> - ||r||^2; at the best b and its own r the two sides are equal.

    Args:
        forward: b -> M b.
        transposed: q -> M^T q, of the shape of b.
        target: t.
        steps: how many v there may be.
    """

    def __init__(
        self, forward: Callable[[Tensor], Tensor], transposed: Callable[[Tensor], Tensor], target: Tensor, steps: int
    ) -> None:
        self._normal = lambda b: transposed(forward(b))
        start = transposed(target)
        self._shape, self._length = start.shape, start.norm()
        self._target = target.square().sum()
        self._basis = start.new_zeros(steps + 1, start.numel())
        self._basis[0] = start.flatten() / self._length
        self._tridiagonal = start.new_zeros(steps + 1, steps)
        self.steps = 0
        self.exhausted = False

    def extend(self, steps: int) -> None:
        """Take more steps: as many as are asked for, allowed, and left before the space is exhausted."""
        for k in range(self.steps, min(self.steps + steps, self._tridiagonal.shape[1])):
            if self.exhausted:
                return
            image = self._normal(self._basis[k].view(self._shape)).flatten()
            size, known = image.norm(), self._basis[: k + 1]
            self._tridiagonal[k, k] = image @ known[k]
            for _ in range(2):  # the second time removes what rounding left
                image = image - known.T @ (known @ image)
            off = image.norm()
            self.steps, self.exhausted = k + 1, bool(off <= _NOTHING * size)
            if not self.exhausted:
                self._tridiagonal[k + 1, k] = off
                if k + 1 < self._tridiagonal.shape[1]:
                    self._tridiagonal[k, k + 1] = off
                self._basis[k + 1] = image / off

    def solve(self, limit: float) -> Limited:
        """The best b in the Krylov space with ||b|| <= limit; `limit` may be infinite."""
        k = self.steps
        tridiagonal = self._tridiagonal[: k + 1, :k]
        y = self._coordinates(tridiagonal[:k], limit)
        start = torch.zeros_like(tridiagonal[:, 0])
        start[0] = self._length
        explained, quadratic = start[:k] @ y, y @ (tridiagonal[:k] @ y)  # <t, M b> and ||M b||^2
        missed = (self._target - 2 * explained + quadratic).item()
        solution = (self._basis[:k].T @ y).view(self._shape)
        at_least = max(
            0.0, *(self._proven(z, start, tridiagonal, limit) for z in (y, *self._duals(start, tridiagonal)))
        )
        return Limited(solution, missed / self._target.item(), min(at_least, missed) / self._target.item())

    def _proven(self, y: Tensor, start: Tensor, tridiagonal: Tensor, limit: float) -> float:
        """2 <t, r> - ||r||^2 - 2 limit ||M^T r|| of r = t - M V y: ||t||^2 - ||M V y||^2 and what is in front."""
        slope = (start - tridiagonal @ y).norm().item()
        proof = (self._target - y @ (tridiagonal[: len(y)] @ y)).item()
        return proof - 2 * limit * slope if slope else proof

    def _duals(self, start: Tensor, tridiagonal: Tensor) -> list[Tensor]:
        """Where the proven bound is largest for some limit: the y of least ||M V y||^2 + c ||M^T r||^2, over c."""
        square, slopes = tridiagonal[:-1], tridiagonal.T @ tridiagonal
        sizes = torch.logspace(-6, 12, _DUALS, dtype=torch.float64) / square.diagonal().mean()
        return [torch.linalg.solve(square + c * slopes, c * tridiagonal.T @ start) for c in sizes]

    def _coordinates(self, square: Tensor, limit: float) -> Tensor:
        """y = (T_k + lambda)^-1 ||M^T t|| e_1, lambda = 0 or, where that is too long, what makes it `limit` long."""
        values, vectors = torch.linalg.eigh(square)
        kept = values > _NOTHING * values[-1]
        values, vectors = values[kept], vectors[:, kept]
        pull = self._length * vectors[0]
        if (pull / values).norm() <= limit:
            return vectors @ (pull / values)
        # ||y|| <= ||pull|| / lambda, so the upper end is short enough; e^-100 of it is none.
        high = torch.log(pull.norm() / limit)
        low = high - 100
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            if (pull / (values + middle.exp())).norm() > limit:
                low = middle
            else:
                high = middle
        return vectors @ (pull / (values + high.exp()))
