"""The first-order formulas on layers of Llama's and Gemma 3's architecture, and on SmolLM2's own weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from theory.model_layers import MlpWithNorms, first_order_slopes, like, mlp_with_norms
from tiny_models import tiny_model, token_ids
from trimtab.linalg import relative_error
from trimtab.models import load_model
from trimtab.theory.first_order import down_projection_shift, steering_jacobian
from trimtab.theory.reachability import free_pre_mlp_steering

GEMMA = Path(__file__).parents[2] / "models" / "gemma-3-270m"
TEXT = "The capital of France is Paris. It lies on the river Seine, and two million people live there."


@pytest.fixture(params=["llama", "gemma3_text"])
def tiny(request: pytest.FixtureRequest) -> MlpWithNorms:
    """The second layer of a tiny random model."""
    return mlp_with_norms(tiny_model(request.param), 1, token_ids(1, 9))


@pytest.fixture
def real(smollm2: Any) -> MlpWithNorms:
    """A layer in the middle of SmolLM2, on a sentence; its stream has massive activations."""
    model, tokenizer = smollm2
    return mlp_with_norms(model, 15, tokenizer(TEXT, return_tensors="pt").input_ids)


def _check(layer: MlpWithNorms) -> None:
    """All slopes are 2: steering behind and in front of the norm, and an update of all weights."""
    slopes = first_order_slopes(layer)
    assert len(slopes) == 3
    assert slopes == {name: pytest.approx(2, abs=0.1) for name in slopes}


def test_slopes_in_tiny_models(tiny: MlpWithNorms) -> None:
    """In the modules of transformers, the norms around the MLP included, what is missed is of second order."""
    _check(tiny)


@pytest.mark.real_model
def test_slopes_in_smollm2(real: MlpWithNorms) -> None:
    """With trained weights and real hidden states, what is missed is of second order."""
    _check(real)


@pytest.mark.real_model
def test_slopes_in_gemma_3() -> None:
    """The same behind Gemma's second norm, where benchmarks/gemma3_270m.py has put the model."""
    if not GEMMA.is_dir():
        pytest.skip("models/gemma-3-270m is not there: benchmarks/gemma3_270m.py makes it")
    model, tokenizer = load_model(str(GEMMA), device="cpu", dtype="float32")
    _check(mlp_with_norms(model, 9, tokenizer(TEXT, return_tensors="pt").input_ids))


@pytest.mark.real_model
def test_steering_in_front_of_smollm2s_mlp_reaches_the_down_projections_term(real: MlpWithNorms) -> None:
    """J(h) has full rank: a free dh reaches all of dW_d y to first order, and a short one most, in the MLP itself."""
    weights, h = real.weights, real.h[1:4]
    target = down_projection_shift(h, weights, 0.01 * like(weights.down), real.activation)
    jacobians = steering_jacobian(h, weights, real.activation)
    steering, error = free_pre_mlp_steering(jacobians, target)
    assert error < 1e-16
    assert (steering.norm(dim=-1) / h.norm(dim=-1)).median() > 0.1
    short, error = free_pre_mlp_steering(jacobians, target, 0.03 * h.norm(dim=-1))
    assert 0.01 < error < 0.2
    assert relative_error(real.added(h + short) - real.added(h), target) < 0.2
