"""How every registered intervention starts: what it does to the stream, and whether training can begin there."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch

from interventions.intervention_variants import TOKENS, build, each_noop, each_variant, stream
from trimtab.interventions import InterventionOptions, get_intervention


@each_noop
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fresh_one_changes_nothing(name: str, options: dict[str, Any], dtype: torch.dtype) -> None:
    """At its start the steered stream is the stream, bit for bit, at any strength and on any tokens."""
    intervention, h = build(name, options), stream(dtype)
    for strength, tokens, gradients in product((1.0, -7.5), (None, TOKENS), (True, False)):
        with torch.set_grad_enabled(gradients):
            assert torch.equal(intervention.steer(h, strength, tokens), h)


@each_variant
def test_a_fresh_one_can_leave_its_start(name: str, options: dict[str, Any]) -> None:
    """At its start some parameter gets a gradient that is not zero, or training would never begin."""
    intervention = build(name, options)
    (intervention.steer(stream(), 1.0) ** 3).sum().backward()
    assert any(parameter.grad.abs().sum() > 0 for parameter in intervention.parameters())


@each_variant
def test_resetting_goes_back_to_the_start(name: str, options: dict[str, Any]) -> None:
    """reset_parameters makes a trained intervention what a fresh one is: the same, if drawn from the same seed."""
    intervention, h = build(name, options), stream()
    for parameter in intervention.parameters():
        torch.nn.init.normal_(parameter)
    torch.manual_seed(1)
    intervention.reset_parameters()
    torch.manual_seed(1)
    assert torch.equal(intervention.steer(h, 1.0), build(name, options).steer(h, 1.0))
    assert torch.equal(intervention.steer(h, 1.0), h) == intervention.starts_as_noop


@each_variant
def test_the_start_in_half_precision(name: str, options: dict[str, Any]) -> None:
    """An adapter in bfloat16, or made while that is the default dtype, has a start too, and finite gradients there."""
    intervention = build(name, options).to(torch.bfloat16)
    intervention.reset_parameters()
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        made = build(name, options)
    finally:
        torch.set_default_dtype(default)
    for each in (intervention, made):
        each.steer(stream(torch.bfloat16), 1.0, TOKENS).sum().backward()
        for parameter in each.parameters():
            assert parameter.dtype == torch.bfloat16
            assert parameter.grad.isfinite().all()


def test_the_start_of_the_reading_side_is_kaimings() -> None:
    """W_down is uniform in +- 1 / sqrt(d), times init_scale, whatever init_weights says."""
    for init_weights, scale in product((True, False), (1.0, 1e-3)):
        options = InterventionOptions(rank=64, init_weights=init_weights, init_scale=scale)
        down = get_intervention("low_rank")(400, options).down.detach()
        bound = scale / 400**0.5
        assert down.abs().max() <= bound
        # The standard deviation of a uniform distribution is its half-width / sqrt 3.
        assert abs(down.std() / (bound / 3**0.5) - 1) < 0.02


def test_the_factors_change_places_with_random_up() -> None:
    """W_up is drawn as W_down would be, transposed; W_down is zero and alone gets a gradient first."""
    torch.manual_seed(0)
    expected = get_intervention("low_rank")(400, InterventionOptions(rank=64, init_scale=0.5)).down
    torch.manual_seed(0)
    turned = get_intervention("low_rank")(400, InterventionOptions(rank=64, init_scale=0.5, random_up=True))
    assert torch.equal(turned.up, expected.T)
    h = torch.randn(5, 400)
    steered = turned.steer(h, 1.0)
    assert torch.equal(steered, h)
    steered.square().sum().backward()
    assert turned.down.grad.abs().max() > 0
    assert turned.up.grad.abs().max() == 0
