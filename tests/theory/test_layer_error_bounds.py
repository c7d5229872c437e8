"""The bounds of appendix E on a gated MLP and on attention hold on random draws, and how much they overstate."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

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
from trimtab.theory.error_propagation import (
    ACTIVATION_CONSTANTS,
    ActivationConstants,
    AttentionWeights,
    attention_error_bound,
    mlp_error_bound,
)
from trimtab.theory.first_order import MlpWeights


def mlp_block(u: Tensor, weights: MlpWeights, name: str, epsilon: float, centred: bool) -> Tensor:
    h = normalised(u, epsilon, centred)
    return u + (FUNCTIONS[name](h @ weights.gate.T) * (h @ weights.up.T)) @ weights.down.T


def attention_block(u: Tensor, weights: AttentionWeights, causal: bool, epsilon: float) -> Tensor:
    """torch's own attention, heads side by side, behind an RMS norm and with the skip-connection."""
    h = normalised(u, epsilon, centred=False)
    query, key, value = (h @ matrix.mT for matrix in weights[:3])
    heads = functional.scaled_dot_product_attention(query, key, value, is_causal=causal)
    return u + heads.transpose(0, 1).flatten(1) @ weights.output.T


@settings(deadline=None)
@given(seeds, widths, logarithms, logarithms, st.sampled_from(sorted(FUNCTIONS)), epsilons, st.booleans())
def test_the_mlps_bound_holds(
    seed: int, width: int, delta: float, error: float, name: str, epsilon: float, centred: bool
) -> None:
    """A gated MLP with its norm and skip-connection, all weights and inputs moved: within lemma E.3."""
    generator, delta, error = new_generator(seed), 10**delta, 10**error
    shapes = ((2 * width, width), (width, 2 * width), (2 * width, width))
    weights = MlpWeights(*(draw(generator, *shape) / width**0.5 for shape in shapes))
    other = MlpWeights(*(moved_by(generator, matrix, error) for matrix in weights))
    u = draw(generator, 4, width)
    moved = mlp_block(nearby(generator, u, delta), other, name, epsilon, centred)
    actual = (mlp_block(u, weights, name, epsilon, centred) - moved).norm(dim=-1)
    constants = ACTIVATION_CONSTANTS[name]
    bound = mlp_error_bound(u, delta, weights, error, constants, epsilon=epsilon, centred=centred)
    assert (actual <= ROUNDING * bound).all()


def test_the_mlps_bound_is_attained_in_one_dimension() -> None:
    """With one number everywhere, a sigmoid at its steepest and all weights growing, lemma E.3 loses nothing."""
    number = lambda value: torch.tensor([[value]], dtype=torch.float64)  # noqa: E731
    u, error = number(2.0), 1e-3
    weights = MlpWeights(number(3.0), number(5.0), number(0.0))
    other = MlpWeights(*(matrix + error for matrix in weights))
    actual = (mlp_block(u, other, "sigmoid", 0.0, False) - mlp_block(u, weights, "sigmoid", 0.0, False)).abs()
    bound = mlp_error_bound(u, 0.0, weights, error, ACTIVATION_CONSTANTS["sigmoid"])
    assert bound.item() == pytest.approx(actual.item(), rel=1e-6)


def test_a_bounded_activation_needs_no_lipschitz_constant() -> None:
    """Either constant may be infinite: with the bound alone the result is finite, and not below the one with both."""
    generator = new_generator(0)
    weights = MlpWeights(draw(generator, 6, 4), draw(generator, 4, 6), draw(generator, 6, 4))
    u = draw(generator, 4)
    both = mlp_error_bound(u, 0.01, weights, 0.01, ACTIVATION_CONSTANTS["sigmoid"])
    bounded = mlp_error_bound(u, 0.01, weights, 0.01, ActivationConstants(math.inf, 1.0))
    lipschitz = mlp_error_bound(u, 0.01, weights, 0.01, ActivationConstants(0.25, math.inf, 0.5))
    assert both < lipschitz < math.inf
    assert both < bounded < math.inf


@settings(deadline=None)
@given(seeds, widths, logarithms, logarithms, epsilons, st.booleans(), st.integers(1, 6), st.integers(1, 3))
def test_the_attentions_bound_holds(
    seed: int, width: int, delta: float, error: float, epsilon: float, causal: bool, tokens: int, heads: int
) -> None:
    """Attention with its norm and skip-connection, all weights and inputs moved: within lemma E.5 at every token."""
    generator, delta, error, depth = new_generator(seed), 10**delta, 10**error, 3
    shapes = (*[(heads, depth, width)] * 3, (width, heads * depth))
    weights = AttentionWeights(*(draw(generator, *shape) / width**0.5 for shape in shapes))
    other = AttentionWeights(*(moved_by(generator, matrix, error) for matrix in weights))
    u = draw(generator, tokens, width)
    moved = attention_block(nearby(generator, u, delta), other, causal, epsilon)
    actual = (attention_block(u, weights, causal, epsilon) - moved).norm(dim=-1)
    bound = attention_error_bound(u, delta, weights, error, scale=depth**-0.5, epsilon=epsilon)
    assert (actual <= ROUNDING * bound).all()


def test_the_attentions_bound_is_nearly_attained() -> None:
    """Two opposite tokens, large keys and values, and queries that grow from nothing: lemma E.5 loses below a tenth."""
    along = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]], dtype=torch.float64)
    u, error, large = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64), 1e-3, 20.0
    weights = AttentionWeights(0 * along, large * along, large * along, along[0])
    other = weights._replace(query=error * along)
    actual = (attention_block(u, weights, False, 0.0) - attention_block(u, other, False, 0.0)).norm(dim=-1)
    bound = attention_error_bound(u, 0.0, weights, error, scale=2**-0.5)
    assert 0.9 * bound < actual.min()
    assert actual.max() < bound


@given(seeds, st.floats(1e-3, 20))
def test_attention_weights_move_by_less_than_twice_the_tanh_of_half_the_scores(seed: int, eta: float) -> None:
    """||softmax(s) - softmax(s')||_1 <= 2 tanh(eta / 2) for scores within eta of each other."""
    generator = new_generator(seed)
    scores = 3 * draw(generator, 7)
    other = scores + eta * (2 * torch.rand(7, generator=generator, dtype=torch.float64) - 1).sign()
    assert (scores.softmax(0) - other.softmax(0)).abs().sum() <= ROUNDING * 2 * math.tanh(eta / 2)


def test_the_bound_on_attention_weights_is_attained() -> None:
    """Two tokens with scores +-eta/2 that swap: the 1-norm of the change is 2 tanh(eta / 2)."""
    scores = torch.tensor([0.35, -0.35], dtype=torch.float64)
    moved = (scores.softmax(0) - scores.neg().softmax(0)).abs().sum().item()
    assert moved == pytest.approx(2 * math.tanh(0.7 / 2))


def test_the_bounds_do_not_grow_with_the_number_of_tokens() -> None:
    """The same tokens ten times over have the same bound."""
    generator = new_generator(0)
    weights = AttentionWeights(*(draw(generator, 2, 3, 4) for _ in range(3)), draw(generator, 4, 6))
    u = draw(generator, 5, 4)
    bounds = [attention_error_bound(tokens, 0.1, weights, 0.1, scale=0.5) for tokens in (u, u.repeat(10, 1))]
    assert bounds[0] == bounds[1]
