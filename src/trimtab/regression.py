"""Linear regression from sums over samples: ridge, of a given rank, in a metric of the outputs.

Rows are samples here: x in R^p is read, y in R^d should come out, w >= 0 is the weight of the sample. What a regression
needs to know of them fits into sums whose size does not depend on their number,

    W = sum w,   s_x = sum w x,   s_y = sum w y,   S_xx = sum w x x^T,   S_xy = sum w x y^T,   S_yy = sum w y y^T

so samples can be streamed. The maps are y = M x + b with M = up down of rank r.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_METRIC_FLOOR = 1e-8  # eigenvalues of a metric below this share of the largest are raised to it


@dataclass(frozen=True)
class LinearMap:
    """y = up down x + bias; `bias` is None where there is none."""

    down: Float[Tensor, "r p"]
    up: Float[Tensor, "d r"]
    bias: Float[Tensor, " d"] | None = None


@dataclass(frozen=True)
class RegressionSums:
    """The weighted sums of the module's head, in float64 (float32 on a device without it)."""

    weight: Float[Tensor, ""]
    x: Float[Tensor, " p"]
    y: Float[Tensor, " d"]
    xx: Float[Tensor, "p p"]
    xy: Float[Tensor, "p d"]
    yy: Float[Tensor, "d d"]

    @classmethod
    def zeros(cls, p: int, d: int, device: torch.device | str = "cpu") -> RegressionSums:
        """Sums over no samples, for inputs of p and outputs of d numbers."""
        device = torch.device(device)
        wide = torch.float32 if device.type == "mps" else torch.float64
        shapes = ((), (p,), (d,), (p, p), (p, d), (d, d))
        return cls(*(torch.zeros(shape, dtype=wide, device=device) for shape in shapes))

    def add(self, x: Float[Tensor, "n p"], y: Float[Tensor, "n d"], weights: Float[Tensor, " n"] | None = None) -> None:
        """Add n samples, in place; without weights each counts 1."""
        x, y = x.to(self.x), y.to(self.y)
        w = x.new_ones(len(x)) if weights is None else weights.to(self.x)
        weighted_x, weighted_y = w[:, None] * x, w[:, None] * y
        self.weight.add_(w.sum())
        self.x.add_(weighted_x.sum(0))
        self.y.add_(weighted_y.sum(0))
        self.xx.addmm_(weighted_x.T, x)
        self.xy.addmm_(weighted_x.T, y)
        self.yy.addmm_(weighted_y.T, y)

    def times(self, factor: float | Tensor) -> RegressionSums:
        """The sums of the same samples with `factor` times their weights."""
        return RegressionSums(*(factor * each for each in self._all))

    def plus(self, other: RegressionSums) -> RegressionSums:
        """The sums over the samples of both."""
        return RegressionSums(*(one + two for one, two in zip(self._all, other._all, strict=True)))

    def energy(self, metric: Float[Tensor, "d d"] | None = None) -> Float[Tensor, ""]:
        """sum w ||y||^2, or sum w y^T G y in the metric G."""
        return _inner(self.yy, metric)

    def error(self, fitted: LinearMap, metric: Float[Tensor, "d d"] | None = None) -> Float[Tensor, ""]:
        """sum w ||y - M x - b||^2 over the samples, or its square in the metric G; at least 0."""
        down, up = fitted.down.to(self.xx), fitted.up.to(self.xx)
        bias = torch.zeros_like(self.y) if fitted.bias is None else fitted.bias.to(self.y)
        predicted = up @ (down @ self.xy)  # sum w (M x) y^T
        shifted = torch.outer(up @ (down @ self.x), bias)  # sum w (M x) b^T
        square = up @ (down @ self.xx @ down.T) @ up.T + self.weight * torch.outer(bias, bias) + shifted + shifted.T
        cross = predicted + torch.outer(bias, self.y)
        return _inner(self.yy - cross - cross.T + square, metric).clamp(min=0)

    @property
    def _all(self) -> tuple[Tensor, ...]:
        return (self.weight, self.x, self.y, self.xx, self.xy, self.yy)


def reduced_rank_ridge(
    sums: RegressionSums,
    rank: int,
    ridge: float = 0.0,
    *,
    intercept: bool = False,
    metric: Float[Tensor, "d d"] | None = None,
) -> LinearMap:
    """The map of rank r that minimises  sum w ||y - M x - b||_G^2 + lambda ||M||_G^2,  ||v||_G^2 = v^T G v.

    With A = S_xx + lambda I the ridge solution is M = S_yx A^-1. Of rank r the best one is that of the truncated
    singular value decomposition in the metric of the fitted values (Mukherjee and Zhu 2011; Eckart and Young):

        G^1/2 S_yx A^-1/2 = U S V^T,      M_r = G^-1/2 U_r U_r^T G^1/2 S_yx A^-1

    An intercept is not penalised: it is b = mean(y) - M mean(x), and the sums are taken about the means. Directions in
    which there are no inputs get nothing.

    Args:
        sums: of the samples.
        rank: r, from 0; with 0 only the intercept is left, the mean of y.
        ridge: lambda as a share of the mean eigenvalue of S_xx, which has no unit.
        intercept: fit b too.
        metric: G, symmetric and positive semi-definite; None is the identity. Eigenvalues below 1e-8 of its largest
            count as that: of an error that the metric does not see, the smaller one is better still.

    Raises:
        ValueError: no samples, a rank or ridge below 0, or rank 0 without an intercept.
    """
    return ridge_path(sums, rank, (ridge,), intercept=intercept, metric=metric)[0]


def ridge_path(
    sums: RegressionSums,
    rank: int,
    ridges: Sequence[float],
    *,
    intercept: bool = False,
    metric: Float[Tensor, "d d"] | None = None,
) -> list[LinearMap]:
    """`reduced_rank_ridge` for several ridges, for which S_xx and the metric are factorised once.

    Raises:
        ValueError: as there.
    """
    if not sums.weight > 0:
        raise ValueError("There is nothing to regress on: the weights of the samples sum to zero.")
    if rank < 0 or not all(ridge >= 0 for ridge in ridges) or (rank == 0 and not intercept):
        raise ValueError(f"rank={rank} and ridge={list(ridges)} must be at least 0, and rank 0 needs an intercept.")
    mean_x, mean_y = sums.x / sums.weight, sums.y / sums.weight
    if rank == 0:
        return [LinearMap(sums.x.new_zeros(0, len(mean_x)), sums.y.new_zeros(len(mean_y), 0), mean_y)] * len(ridges)
    xx, xy = sums.xx, sums.xy
    if intercept:
        xx = xx - torch.outer(mean_x, sums.x)
        xy = xy - torch.outer(mean_x, sums.y)
    squares, directions = torch.linalg.eigh(xx)
    squares = squares.clamp(min=0)
    rotated = directions.T @ xy  # (p, d), rows in the basis `directions`
    unrooted = None
    if metric is not None:
        root, unrooted = _roots(metric.to(xx))
        rotated = rotated @ root
    found = []
    for ridge in ridges:
        damped = squares + ridge * squares.mean()
        empty = damped <= len(damped) * torch.finfo(damped.dtype).eps * damped.max()
        inverse_root = torch.where(empty, 0, damped.clamp(min=torch.finfo(damped.dtype).tiny).rsqrt())
        whitened = inverse_root[:, None] * rotated
        _, outputs = torch.linalg.eigh(whitened.T @ whitened)  # ascending: the columns are U
        kept = outputs[:, outputs.shape[1] - min(rank, *xy.shape) :]
        reading = directions @ (inverse_root[:, None] * (whitened @ kept))  # (p, r)
        writing = kept if unrooted is None else unrooted @ kept  # (d, r)
        down, up = _balanced(writing, reading, rank)
        found.append(LinearMap(down, up, mean_y - up @ (down @ mean_x) if intercept else None))
    return found


def _inner(square: Tensor, metric: Tensor | None) -> Tensor:
    return square.trace() if metric is None else (square * metric.to(square)).sum()


def _roots(metric: Tensor) -> tuple[Tensor, Tensor]:
    """G^1/2 and G^-1/2."""
    values, vectors = torch.linalg.eigh((metric + metric.T) / 2)
    values = values.clamp(min=_METRIC_FLOOR * float(values[-1])).sqrt()
    return vectors * values @ vectors.T, vectors / values @ vectors.T


def _balanced(writing: Tensor, reading: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """down (r, p) and up (d, r) of the product writing reading^T, singular values shared evenly between them.

    Gradients of both factors are then of one size, should they be trained on. Zeros where the product has a lower rank.
    """
    left, of_left = torch.linalg.qr(writing)
    right, of_right = torch.linalg.qr(reading)
    inner, sizes, outer = torch.linalg.svd(of_left @ of_right.T)
    up, down = left @ inner * sizes.sqrt(), sizes.sqrt()[:, None] * (outer @ right.T)
    missing = rank - up.shape[1]
    return torch.nn.functional.pad(down, (0, 0, 0, missing)), torch.nn.functional.pad(up, (0, missing))
