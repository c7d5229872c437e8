"""What a map of given rank and norm gains to first order: the bound is attained, and never exceeded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from trimtab.theory.first_order_gain import BALLS, first_order_gain, steepest_map

NORMS = {"spectral": 2, "frobenius": "fro"}

each_ball = pytest.mark.parametrize("ball", BALLS)
each_rank = pytest.mark.parametrize("rank", [1, 3, 7])


def gradient() -> Tensor:
    """A 9 x 7 gradient whose singular values fall off."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(9, 7, generator=generator, dtype=torch.float64) * 0.7 ** torch.arange(7, dtype=torch.float64)


def gain_of(candidate: np.ndarray, rank: int, ball: str) -> float:
    """-<G, M> of the nearest map of rank r, at norm 1."""
    u, s, v = np.linalg.svd(candidate, full_matrices=False)
    cut = (u[:, :rank] * s[:rank]) @ v[:rank]
    cut /= np.linalg.norm(cut, NORMS[ball])
    return -float(np.sum(gradient().numpy() * cut))


@each_ball
@each_rank
def test_the_steepest_map_attains_the_bound(rank: int, ball: str) -> None:
    """It has the rank, norm 1, and -<G, M> is the bound, by numpy's norms."""
    found = steepest_map(gradient(), rank, ball).numpy()
    bound = first_order_gain(torch.from_numpy(np.linalg.svd(gradient().numpy(), compute_uv=False)), rank, ball)
    assert np.linalg.matrix_rank(found) == rank
    assert np.linalg.norm(found, NORMS[ball]) == pytest.approx(1)
    assert -np.sum(gradient().numpy() * found) == pytest.approx(float(bound))


@each_ball
@each_rank
def test_no_other_map_of_that_rank_and_norm_gains_more(rank: int, ball: str) -> None:
    """Neither random ones nor neighbours of the steepest one; the neighbours come near."""
    rng = np.random.default_rng(1)
    best = steepest_map(gradient(), rank, ball).numpy()
    bound = float(first_order_gain(torch.linalg.svdvals(gradient()), rank, ball))
    near = [gain_of(best + size * rng.standard_normal((9, 7)), rank, ball) for size in (1e-3, 0.1) for _ in range(100)]
    far = [gain_of(rng.standard_normal((9, 7)), rank, ball) for _ in range(300)]
    assert max(near + far) <= bound * (1 + 1e-12)
    assert max(near) > 0.99 * bound
    assert max(far) < 0.95 * bound


def test_the_whole_rank_has_the_dual_norms() -> None:
    """At full rank the bounds are the nuclear norm and the Frobenius norm of G."""
    s = torch.linalg.svdvals(gradient())
    assert float(first_order_gain(s, 7)) == pytest.approx(np.linalg.norm(gradient().numpy(), "nuc"))
    assert float(first_order_gain(s, 7, "frobenius")) == pytest.approx(np.linalg.norm(gradient().numpy(), "fro"))


def test_bad_input_is_named() -> None:
    """An unknown ball with the nearest one, a rank that the matrix has not, a gradient of nothing."""
    with pytest.raises(ValueError, match="Did you mean 'spectral'"):
        first_order_gain(torch.ones(3), 1, "spectrall")
    for rank in (0, 4):
        with pytest.raises(ValueError, match=f"rank {rank} must lie between 1 and 3"):
            first_order_gain(torch.ones(3), rank)
    with pytest.raises(ValueError, match="The gradient is zero"):
        steepest_map(torch.zeros(3, 3), 1)
