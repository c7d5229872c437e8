"""The bounds of appendix E on norms, products and activations, and what all bounds have in common."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from theory.moved_layers import (
    FUNCTIONS,
    ROUNDING,
    draw,
    epsilons,
    logarithms,
    moved_by,
    nearby,
    new_generator,
    normalised,
    seeds,
    widths,
)
from trimtab.interventions.activations import ACTIVATIONS
from trimtab.theory.error_propagation import (
    ACTIVATION_CONSTANTS,
    ActivationConstants,
    AttentionWeights,
    attention_error_bound,
    mlp_error_bound,
    norm_error_bound,
    product_error_bound,
)
from trimtab.theory.first_order import MlpWeights


@given(seeds, widths, logarithms, epsilons, st.booleans())
def test_the_norms_bound_holds(seed: int, width: int, logarithm: float, epsilon: float, centred: bool) -> None:
    """No vector within delta is farther after an RMS norm or a layer norm than lemma E.1 says."""
    generator, delta = new_generator(seed), 10**logarithm
    u = draw(generator, 4, width)
    actual = (normalised(u, epsilon, centred) - normalised(nearby(generator, u, delta), epsilon, centred)).norm(dim=-1)
    assert (actual <= ROUNDING * norm_error_bound(u, delta, epsilon=epsilon, centred=centred) + 1e-12).all()


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_the_norms_bound_is_attained(share: float) -> None:
    """At the tangent from the origin to the ball around u the two sides are equal: no smaller bound is possible."""
    generator = new_generator(0)
    u = draw(generator, 6)
    delta = share * u.norm().item()
    across = draw(generator, 6)
    across = across - u * (u @ across) / (u @ u)
    tangent = u * (1 - share**2) + delta * math.sqrt(1 - share**2) * across / across.norm()
    assert (tangent - u).norm().item() == pytest.approx(delta)
    actual = (normalised(u, 0.0, False) - normalised(tangent, 0.0, False)).norm()
    assert norm_error_bound(u, delta).item() == pytest.approx(actual.item(), rel=1e-9)


def test_beyond_its_length_a_vector_may_turn_round() -> None:
    """For delta > ||u|| the bound is 2 sqrt(d), and -u attains it."""
    u = draw(new_generator(0), 6)
    assert norm_error_bound(u, 2.1 * u.norm()).item() == pytest.approx(
        (normalised(u, 0, False) - normalised(-u, 0, False)).norm()
    )


@given(seeds, logarithms, logarithms)
def test_the_products_bound_holds(seed: int, first: float, second: float) -> None:
    """The spectral distance of two products is within lemma E.2."""
    generator = new_generator(seed)
    p, q = draw(generator, 4, 5), draw(generator, 5, 3)
    norm = lambda matrix: torch.linalg.matrix_norm(matrix, 2)  # noqa: E731
    actual = norm(p @ q - moved_by(generator, p, 10**first) @ moved_by(generator, q, 10**second))
    assert actual <= ROUNDING * product_error_bound(norm(p), 10**first, norm(q), 10**second)


def test_the_products_bound_is_attained() -> None:
    """Numbers of one sign: (3 + 1) (5 + 2) - 3 * 5 = 13."""
    assert product_error_bound(3.0, 1.0, 5.0, 2.0) == 13.0


@pytest.mark.parametrize("name", sorted(ACTIVATION_CONSTANTS))
def test_the_constants_are_those_of_the_activation(name: str) -> None:
    """The largest slope on a fine grid is the Lipschitz constant to six digits and not above it; likewise the bound."""
    a = torch.linspace(-12, 12, 200_001, dtype=torch.float64).requires_grad_()
    value = FUNCTIONS[name](a)
    slopes = torch.autograd.grad(value.sum(), a)[0].abs()
    constants = ACTIVATION_CONSTANTS[name]
    assert constants.lipschitz * (1 - 1e-6) <= slopes.max() <= constants.lipschitz
    assert constants.at_zero == FUNCTIONS[name](torch.zeros(())).abs()
    if math.isinf(constants.bound):
        assert value.max() > 11
    else:
        assert constants.bound * (1 - 1e-5) <= value.abs().max() <= constants.bound


def test_every_activation_of_the_interventions_has_its_constants() -> None:
    """What an adapter may have, the bounds know; the paper's sigmoid comes in addition."""
    assert set(ACTIVATION_CONSTANTS) == set(ACTIVATIONS) | {"sigmoid"}


def test_nothing_moved_nothing_lost() -> None:
    """With both distances zero all bounds are zero, also for an activation without a bound."""
    generator = new_generator(0)
    u = draw(generator, 3, 4)
    mlp = MlpWeights(draw(generator, 6, 4), draw(generator, 4, 6), draw(generator, 6, 4))
    attention = AttentionWeights(*(draw(generator, 2, 3, 4) for _ in range(3)), draw(generator, 4, 6))
    assert (mlp_error_bound(u, 0.0, mlp, 0.0, ACTIVATION_CONSTANTS["silu"]) == 0).all()
    assert attention_error_bound(u, 0.0, attention, 0.0, scale=1.0) == 0


def test_impossible_arguments_are_refused() -> None:
    """Negative distances, a plain MLP, an activation without constants: an error that names what is wrong."""
    generator = new_generator(0)
    u = draw(generator, 4)
    weights = MlpWeights(draw(generator, 6, 4), draw(generator, 4, 6), draw(generator, 6, 4))
    silu = ACTIVATION_CONSTANTS["silu"]
    with pytest.raises(ValueError, match=r"delta=-1\.0"):
        norm_error_bound(u, -1.0)
    with pytest.raises(ValueError, match=r"parameter_error=-1\.0"):
        mlp_error_bound(u, 1.0, weights, -1.0, silu)
    with pytest.raises(ValueError, match="no gate"):
        mlp_error_bound(u, 1.0, weights._replace(gate=None), 0.1, silu)
    with pytest.raises(ValueError, match="neither Lipschitz nor bounded"):
        mlp_error_bound(u, 1.0, weights, 0.1, ActivationConstants(math.inf, math.inf))
