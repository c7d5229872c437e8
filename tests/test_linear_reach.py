"""benchmarks/_theory_reach.py: what a linear map in front of an MLP misses is what dense algebra says it is."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import torch
from torch import Tensor

from theory.model_layers import MlpWithNorms, mlp_with_norms
from tiny_models import tiny_model, token_ids
from trimtab.theory.first_order import steering_jacobian, steering_shift
from trimtab.theory.post_block import linear_map_error
from trimtab.theory.reachability import linear_pre_mlp_error

STEPS = 300
ROUNDING = 1e-9


@pytest.fixture(scope="module")
def reach() -> ModuleType:
    """The module of the benchmark."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
        return importlib.import_module("_theory_reach")


@pytest.fixture(scope="module")
def layer() -> MlpWithNorms:
    """An MLP of the tiny llama on 60 tokens."""
    return mlp_with_norms(tiny_model("llama"), 1, token_ids(1, 60))


def _dense(layer: MlpWithNorms) -> np.ndarray:
    """The matrix of B -> J(h_i) B q_i, tokens q whitened by an eigendecomposition, and so up to a rotation of B."""
    h = layer.h.numpy()
    values, vectors = np.linalg.eigh(h.T @ h)
    q = h @ (vectors / np.sqrt(values))
    jacobians = steering_jacobian(layer.h, layer.weights, layer.activation).numpy()
    return np.concatenate([np.kron(j, one[None]) for j, one in zip(jacobians, q, strict=True)])


def _target(reach: ModuleType, layer: MlpWithNorms) -> Tensor:
    torch.manual_seed(0)
    return reach.down_projection_term(layer, layer.h)


def test_without_a_limit_it_is_the_best_matrix_of_all(reach: ModuleType, layer: MlpWithNorms) -> None:
    """Conjugate gradients, with lambda gone, come to `linear_pre_mlp_error`, and shift by what they say they do."""
    target, steering = _target(reach, layer), reach.LinearSteering(layer, layer.h)
    problem = steering.best(target, STEPS)
    problem.extend(STEPS)
    found = problem.solve(math.inf)
    jacobians = steering_jacobian(layer.h, layer.weights, layer.activation)
    expected = linear_pre_mlp_error(layer.h, jacobians, target).item()
    assert expected > 0.03
    assert found.missed == pytest.approx(expected, rel=1e-4)
    left = target - steering.shift(found.solution, layer.h)
    assert (left.square().sum() / target.square().sum()).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("share", [0.003, 0.01])
def test_within_a_limit_it_is_the_ridge_of_that_length(reach: ModuleType, layer: MlpWithNorms, share: float) -> None:
    """The dense ridge regression whose lambda scipy finds misses as much, and is as long."""
    target, steering = _target(reach, layer), reach.LinearSteering(layer, layer.h)
    problem, limit = steering.best(target, STEPS), share * layer.h.norm().item()
    problem.extend(STEPS)
    found = problem.solve(limit)
    u, s, _ = scipy.linalg.svd(_dense(layer), full_matrices=False)
    pull = u.T @ target.numpy().flatten()
    length = lambda log: np.linalg.norm(s * pull / (s**2 + np.exp(log)))  # noqa: E731
    damped = np.exp(scipy.optimize.brentq(lambda log: length(log) - limit, -60, 40))
    size = target.square().sum().item()
    missed = 1 - np.sum(pull**2) / size + np.sum((damped / (s**2 + damped) * pull) ** 2) / size
    assert found.missed == pytest.approx(missed, rel=1e-6)
    assert found.at_least == pytest.approx(missed, rel=1e-6)
    assert steering.steering(found.solution, layer.h).norm().item() == pytest.approx(limit)


@pytest.mark.parametrize("share", [0.003, 0.03])
def test_before_it_converges_the_truth_is_between_its_bounds(
    reach: ModuleType, layer: MlpWithNorms, share: float
) -> None:
    """After any number of steps what is missed is too much, what provably must be too little, and both close in."""
    problem, limit = reach.LinearSteering(layer, layer.h).best(_target(reach, layer), STEPS), share * layer.h.norm()
    founds = []
    for steps in (3, 3, 10, STEPS):
        problem.extend(steps)
        founds.append(problem.solve(limit.item()))
    missed, proven = [found.missed for found in founds], [found.at_least for found in founds]
    assert max(np.diff(missed)) <= ROUNDING
    assert max(proven) <= min(missed) + ROUNDING
    assert missed[0] - proven[0] > 1e-3 * missed[0]
    assert missed[-1] - proven[-1] < 1e-3 * missed[-1]


def test_what_a_linear_map_makes_is_reached(reach: ModuleType, layer: MlpWithNorms) -> None:
    """The target J(h) A h of a known A is missed by nothing, and other tokens show that it is that A."""
    known = torch.randn(layer.h.shape[1], layer.h.shape[1], generator=torch.Generator().manual_seed(0)).double()
    shift = lambda h: steering_shift(h, h @ known.T, layer.weights, layer.activation)  # noqa: E731
    steering = reach.LinearSteering(layer, layer.h[:48])
    problem = steering.best(shift(layer.h[:48]), 600)
    problem.extend(600)
    found, unseen = problem.solve(math.inf), layer.h[48:]
    assert found.missed < 1e-8
    assert (steering.shift(found.solution, unseen) - shift(unseen)).norm() < 1e-3 * shift(unseen).norm()


def test_a_number_that_a_norm_scales_to_zero_steers_nothing(reach: ModuleType, layer: MlpWithNorms) -> None:
    """Tokens without one of their numbers: still the best matrix of all, and other tokens are steered by it."""
    h = layer.h.clone()
    h[:, 3] = 0
    torch.manual_seed(0)
    target, steering = reach.down_projection_term(layer, h), reach.LinearSteering(layer, h)
    problem = steering.best(target, STEPS)
    problem.extend(STEPS)
    found = problem.solve(math.inf)
    jacobians = steering_jacobian(h, layer.weights, layer.activation)
    assert found.missed == pytest.approx(linear_pre_mlp_error(h, jacobians, target).item(), rel=1e-4)
    left = target - steering.shift(found.solution, h)
    assert (left.square().sum() / target.square().sum()).item() == pytest.approx(found.missed, rel=1e-4)


def test_what_is_written_down(reach: ModuleType) -> None:
    """A longer dh misses no more, a short one as much in the MLP; behind it theorem 3.1's residual is left."""
    layer = mlp_with_norms(tiny_model("llama"), 1, token_ids(1, 300))
    torch.manual_seed(0)
    found = reach.linear_reach(layer)
    missed = [each["missed"][0] for each in found["in_front"].values()]
    assert max(np.diff(missed)) <= ROUNDING
    for share, each in found["in_front"].items():
        assert 0 <= each["at_least"] <= each["missed"][0] + ROUNDING
        assert each["length"] <= float(share) + ROUNDING
    formula, module, _ = found["in_front"]["0.003"]["missed"]
    assert module == pytest.approx(formula, rel=0.05)
    assert found["samples"] == [267, 32]
    torch.manual_seed(0)
    target, seen = reach.down_projection_term(layer, layer.h[1:]), torch.arange(299) // 32 != 7
    outputs = layer.mlp(layer.h[1:]).detach()
    assert found["behind"][0] == pytest.approx(linear_map_error(outputs[seen].T, target[seen].T).item())


def test_too_few_tokens_are_refused(reach: ModuleType, layer: MlpWithNorms) -> None:
    """With no more tokens than the stream is wide a linear map fits anything."""
    with pytest.raises(ValueError, match=r"24 tokens are not more than the stream's 24 numbers: raise --tokens"):
        reach.LinearSteering(layer, layer.h[:24])
