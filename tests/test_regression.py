"""Regression from sums, against numpy on the samples themselves."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor
from torch.testing import assert_close

from trimtab.regression import LinearMap, RegressionSums, reduced_rank_ridge, ridge_path

P, D, N = 6, 4, 50


def samples(noise: float = 0.3, rank: int = D) -> tuple[Tensor, Tensor, Tensor]:
    """x (n, p) about a mean that is not 0, y (n, d) linear in it with a constant and noise, weights (n)."""
    x = torch.randn(N, P, dtype=torch.float64) @ torch.randn(P, P, dtype=torch.float64) + 1
    true = torch.randn(D, rank, dtype=torch.float64) @ torch.randn(rank, P, dtype=torch.float64)
    y = x @ true.T + torch.randn(D, dtype=torch.float64) + noise * torch.randn(N, D, dtype=torch.float64)
    return x, y, torch.rand(N, dtype=torch.float64) + 0.1


def sums_of(x: Tensor, y: Tensor, weights: Tensor | None = None, parts: int = 1) -> RegressionSums:
    """The sums, added in parts of different sizes."""
    sums = RegressionSums.zeros(x.shape[1], y.shape[1])
    for rows in torch.arange(len(x)).tensor_split([3, 20][: parts - 1]):
        sums.add(x[rows], y[rows], None if weights is None else weights[rows])
    return sums


def matrix(fitted: LinearMap) -> Tensor:
    """M = up down."""
    return fitted.up @ fitted.down


def loss(m: Tensor, b: Tensor, x: Tensor, y: Tensor, w: Tensor, metric: Tensor | None = None) -> float:
    """sum w ||y - M x - b||_G^2, sample by sample."""
    rest = y - x @ m.T - b
    metric = torch.eye(D, dtype=torch.float64) if metric is None else metric
    return float(torch.einsum("n,nd,de,ne->", w, rest, metric, rest))


@pytest.mark.parametrize("weighted", [False, True])
def test_sums_of_parts_are_the_sums_of_all(weighted: bool) -> None:
    """Streamed in three parts, or written out with numpy on all samples at once."""
    x, y, w = samples()
    streamed = sums_of(x, y, w if weighted else None, parts=3)
    scale = np.diag(w.numpy()) if weighted else np.eye(N)
    for name, left, right in (("xx", x, x), ("xy", x, y), ("yy", y, y)):
        np.testing.assert_allclose(getattr(streamed, name), left.numpy().T @ scale @ right.numpy(), rtol=1e-12)
    np.testing.assert_allclose(streamed.x, scale.sum(0) @ x.numpy(), rtol=1e-12)
    np.testing.assert_allclose(streamed.y, scale.sum(0) @ y.numpy(), rtol=1e-12)
    assert float(streamed.weight) == pytest.approx(scale.sum())


def test_sums_are_scaled_and_joined() -> None:
    """`times` is other weights, `plus` the samples of both."""
    x, y, w = samples()
    joined = sums_of(x[:10], y[:10], w[:10]).times(3.0).plus(sums_of(x[10:], y[10:], w[10:]))
    at_once = sums_of(x, y, torch.cat([3 * w[:10], w[10:]]))
    for name in ("weight", "x", "y", "xx", "xy", "yy"):
        assert_close(getattr(joined, name), getattr(at_once, name))


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("ridge", [0.0, 1e-3, 0.7])
def test_ridge_is_least_squares_on_augmented_samples(ridge: float, intercept: bool) -> None:
    """[sqrt(w) x; sqrt(lambda) I] against [sqrt(w) y; 0], solved by numpy; the intercept is not penalised."""
    x, y, w = samples()
    fitted = reduced_rank_ridge(sums_of(x, y, w), D, ridge, intercept=intercept)
    centre = (w[:, None] * x).sum(0) / w.sum() if intercept else torch.zeros(P, dtype=torch.float64)
    spread = torch.linalg.eigvalsh((x - centre).T @ torch.diag(w) @ (x - centre)).mean()
    penalty = torch.cat([torch.eye(P), torch.zeros(P, 1)], 1) if intercept else torch.eye(P)
    design = torch.cat([x, torch.ones(N, 1)], 1) if intercept else x
    rows = torch.cat([w.sqrt()[:, None] * design, (ridge * spread).sqrt() * penalty.double()])
    wanted = torch.cat([w.sqrt()[:, None] * y, torch.zeros(P, D, dtype=torch.float64)])
    solution = torch.from_numpy(np.linalg.lstsq(rows.numpy(), wanted.numpy(), rcond=None)[0]).T
    assert_close(matrix(fitted), solution[:, :P], rtol=1e-8, atol=1e-10)
    assert (fitted.bias is not None) == intercept
    if fitted.bias is not None:
        assert_close(fitted.bias, solution[:, P], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_lower_rank_is_the_eckart_young_optimum(rank: int) -> None:
    """Of exact linear data, the error is the sum of the squares of the singular values of Y that are left out."""
    x, _, _ = samples()
    y = x @ torch.randn(P, D, dtype=torch.float64)
    sums = sums_of(x, y)
    fitted = reduced_rank_ridge(sums, rank)
    left_out = np.linalg.svd(y.numpy(), compute_uv=False)[rank:]
    assert float(sums.error(fitted)) == pytest.approx(float((left_out**2).sum()), rel=1e-9)
    assert torch.linalg.matrix_rank(matrix(fitted)) == rank


@pytest.mark.parametrize("rank", [1, 2])
def test_no_map_of_that_rank_is_better_in_a_metric(rank: int) -> None:
    """The penalised objective of numerical minimisation from several starts, in a metric and with an intercept."""
    x, y, w = samples(noise=1.0)
    root = torch.randn(D, D, dtype=torch.float64)
    metric, ridge = root @ root.T, 0.05
    fitted = reduced_rank_ridge(sums_of(x, y, w), rank, ridge, intercept=True, metric=metric)
    centred = x - (w[:, None] * x).sum(0) / w.sum()
    penalty = ridge * float(torch.trace(centred.T @ torch.diag(w) @ centred)) / P

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        free = torch.from_numpy(flat).requires_grad_()
        up, down, bias = free.split([D * rank, rank * P, D])
        m = up.view(D, rank) @ down.view(rank, P)
        rest = y - x @ m.T - bias
        value = torch.einsum("n,nd,de,ne->", w, rest, metric, rest) + penalty * torch.trace(m.T @ metric @ m)
        value.backward()
        return float(value.detach()), free.grad.numpy()

    starts = [np.random.default_rng(seed).normal(size=D * rank + rank * P + D) for seed in range(4)]
    options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-15, "gtol": 1e-9}
    runs = [scipy.optimize.minimize(objective, s, jac=True, method="L-BFGS-B", options=options) for s in starts]
    found = min(run.fun for run in runs)
    m = matrix(fitted)
    ours = loss(m, fitted.bias, x, y, w, metric) + penalty * float(torch.trace(m.T @ metric @ m))
    assert ours == pytest.approx(found, rel=1e-5)
    assert ours <= found * (1 + 1e-9)


def test_the_metric_changes_what_is_kept() -> None:
    """A metric that sees one output only keeps that output whole, which plain squares would not."""
    x, y, w = samples(noise=0.0)
    y[:, 0] *= 0.1
    only_first = torch.diag(torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64))
    sums = sums_of(x, y, w)
    first = [
        float(sums.error(reduced_rank_ridge(sums, 1, intercept=True, metric=metric), only_first))
        for metric in (None, only_first)
    ]
    assert first[1] < 1e-6 * float(sums.energy(only_first))
    assert first[0] > 1e-2 * float(sums.energy(only_first))


def test_error_and_energy_are_those_of_the_samples() -> None:
    """Of any map, with a bias and without, in a metric and without: summed sample by sample."""
    x, y, w = samples()
    sums = sums_of(x, y, w)
    metric = torch.diag(torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64))
    down, up = torch.randn(2, P, dtype=torch.float64), torch.randn(D, 2, dtype=torch.float64)
    for bias in (None, torch.randn(D, dtype=torch.float64)):
        for each in (None, metric):
            expected = loss(up @ down, torch.zeros(D).double() if bias is None else bias, x, y, w, each)
            assert float(sums.error(LinearMap(down, up, bias), each)) == pytest.approx(expected, rel=1e-10)
    assert float(sums.energy(metric)) == pytest.approx(
        loss(torch.zeros(D, P).double(), torch.zeros(D), x, y, w, metric)
    )


def test_factors_share_their_size() -> None:
    """W_down W_down^T = W_up^T W_up, diagonal."""
    x, y, w = samples()
    fitted = reduced_rank_ridge(sums_of(x, y, w), 3)
    grams = fitted.down @ fitted.down.T, fitted.up.T @ fitted.up
    assert_close(*grams)
    assert_close(grams[0], torch.diag(grams[0].diagonal()), rtol=0, atol=1e-10)


def test_rank_0_is_the_mean() -> None:
    """The best vector is the weighted mean of the outputs."""
    x, y, w = samples()
    fitted = reduced_rank_ridge(sums_of(x, y, w), 0, intercept=True)
    np.testing.assert_allclose(fitted.bias, np.average(y.numpy(), axis=0, weights=w.numpy()), rtol=1e-12)
    assert fitted.down.shape == (0, P)


@pytest.mark.parametrize("rank", [3, 6])
def test_directions_without_inputs_get_nothing(rank: int) -> None:
    """With fewer samples than inputs and no ridge: numpy's smallest solution; a rank above the data's is padded."""
    x, y, _ = samples()
    x = x[:, :2] @ torch.randn(2, P, dtype=torch.float64)
    fitted = reduced_rank_ridge(sums_of(x, y), rank)
    wanted = np.linalg.pinv(x.numpy(), rcond=1e-10) @ y.numpy()
    np.testing.assert_allclose(matrix(fitted).T, wanted, rtol=1e-6, atol=1e-8)
    assert fitted.up.shape == (D, rank)


def test_what_has_no_answer_is_refused() -> None:
    """No samples; a negative rank or ridge; rank 0 without an intercept."""
    x, y, _ = samples()
    with pytest.raises(ValueError, match="nothing to regress on"):
        reduced_rank_ridge(RegressionSums.zeros(P, D), 2)
    for rank, ridge in ((-1, 0.0), (2, -1.0), (2, float("nan")), (0, 0.0)):
        with pytest.raises(ValueError, match="must be at least 0"):
            reduced_rank_ridge(sums_of(x, y), rank, ridge)


def test_several_ridges_are_fitted_as_each_alone() -> None:
    """One factorisation for all of them changes none."""
    x, y, w = samples()
    sums, ridges = sums_of(x, y, w), (0.0, 0.1, 2.0)
    metric = torch.diag(torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64))
    together = ridge_path(sums, 2, ridges, intercept=True, metric=metric)
    for ridge, fitted in zip(ridges, together, strict=True):
        alone = reduced_rank_ridge(sums, 2, ridge, intercept=True, metric=metric)
        assert_close(matrix(fitted), matrix(alone))
    assert len({float(matrix(fitted).norm()) for fitted in together}) == 3
