"""Theorem 3.1 on activations, against scipy on hidden states that are read one by one."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from torch.testing import assert_close

from analysis.subjects import prompts, subject, tokens_of
from tiny_models import tiny_model
from trimtab.analysis import AnalysisOptions
from trimtab.analysis.post_block import ANALYSIS, matrices_with_the_products_of, post_block
from trimtab.regression import RegressionSums

MANY = {"count": 40, "longest": 14}


def states(model: object, layer: int, half: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Z and G, a row a token."""
    chosen = prompts(**MANY) if half is None else prompts(**MANY)[half::2]
    name = f"model.layers.{layer}"
    return tokens_of(model, name, "output", chosen), tokens_of(model, f"{name}.mlp", "output", chosen)  # type: ignore[arg-type]


def test_errors_and_angles_are_those_of_whole_activations() -> None:
    """The least-squares error on all tokens, that on the other half, and the principal angles."""
    model = tiny_model()
    found = post_block(subject(model, **MANY), AnalysisOptions(ridge=0, batch_tokens=100))
    assert found.width == 24 < min(found.tokens)
    for layer in found.layers:
        z, mlp = states(model, layer)
        assert len(z) == found.tokens[0]
        best = scipy.linalg.lstsq(z, mlp)[0]
        wanted = ((z @ best - mlp) ** 2).sum() / (mlp**2).sum()
        assert 0.001 < wanted < 1
        assert found.error[layer].item() == pytest.approx(wanted, rel=1e-5)
        low, high = found.bounds[layer].tolist()
        assert low <= wanted <= high
        angles = np.rad2deg(scipy.linalg.subspace_angles(z, mlp))[::-1]
        np.testing.assert_allclose(found.angles[layer].numpy(), angles, atol=0.01)
        (z0, mlp0), (z1, mlp1) = (states(model, layer, half) for half in (0, 1))
        best = scipy.linalg.lstsq(z0, mlp0)[0]
        wanted = ((z1 @ best - mlp1) ** 2).sum() / (mlp1**2).sum()
        assert found.held_out[layer].item() == pytest.approx(wanted, rel=1e-4)
        assert found.held_out[layer] > found.error[layer]


def test_little_memory_gives_the_same() -> None:
    """One layer at a time."""
    one = subject(**MANY)
    few, all_at_once = (post_block(one, AnalysisOptions(memory_gb=size)) for size in (1e-9, 1.0))
    assert torch.equal(few.error, all_at_once.error)
    assert torch.equal(few.held_out, all_at_once.held_out)


def test_small_matrices_with_the_same_products() -> None:
    """Also of activations that fill only a part of the space."""
    x = torch.randn(50, 3, dtype=torch.float64) @ torch.randn(3, 6, dtype=torch.float64)
    y = torch.randn(50, 4, dtype=torch.float64)
    sums = RegressionSums.zeros(6, 4)
    sums.add(x, y)
    small_y, small_x = matrices_with_the_products_of(sums)
    assert small_y.shape == (4, 10)
    assert_close(small_y @ small_y.mT, y.mT @ y)
    assert_close(small_y @ small_x.mT, y.mT @ x)
    assert_close(small_x @ small_x.mT, x.mT @ x)
    assert torch.linalg.matrix_rank(small_x, rtol=1e-6) == 3


def test_too_few_tokens_are_not_measured() -> None:
    """With n <= d in a half a map fits anything; the reason has both numbers."""
    reason = ANALYSIS.missing(subject(count=4), AnalysisOptions())
    assert reason is not None
    assert "24 wide" in reason
    assert ANALYSIS.missing(subject(**MANY), AnalysisOptions()) is None
