"""What every registered intervention promises, with every option that it knows; its start has tests of its own."""

from __future__ import annotations

from dataclasses import fields
from itertools import product
from typing import Any

import pytest
import torch

from interventions.intervention_variants import TOKENS, WIDTH, build, each_variant, stream
from trimtab.interventions import InterventionOptions, get_intervention, intervention_names


def test_the_interventions_are_the_files_of_the_folder() -> None:
    """The published ones are there; base classes and the helpers beside them are not interventions."""
    assert {"direft", "loreft", "low_rank", "nodireft", "vector"} <= set(intervention_names())
    assert {"head_bias", "head_scale", "jola"} <= set(intervention_names())
    for name in intervention_names():
        assert get_intervention(name).name == name


def test_an_unknown_intervention_names_the_nearest() -> None:
    """A misspelt name is an error that suggests the right one."""
    with pytest.raises(ValueError, match=r"Unknown intervention 'low-rank'\. Did you mean 'low_rank'\?"):
        get_intervention("low-rank")


def test_what_an_intervention_uses_are_options() -> None:
    """`uses` names fields of InterventionOptions, so that a typo there cannot hide an option."""
    known = {field.name for field in fields(InterventionOptions)}
    for name in intervention_names():
        assert get_intervention(name).uses <= known


@each_variant
def test_random_weights_do_something(name: str, options: dict[str, Any]) -> None:
    """init_weights=False gives a shift on every token."""
    h = stream()
    shifted = build(name, options, init_weights=False).steer(h, 1.0)
    # A relu of rank 1 is 0 on about half of the tokens, unless a bias lifts them.
    share = 0.1 if options.get("activation") == "relu" else 0.99
    assert ((shifted - h).abs().amax(-1) > 1e-6).float().mean() > share


@each_variant
def test_every_parameter_learns(name: str, options: dict[str, Any]) -> None:
    """Away from its start every parameter gets a gradient that is not zero, and every one requires it."""
    intervention = build(name, options, init_weights=False)
    # The third power: the square of a rotated stream does not depend on the rotation.
    intervention.steer(stream(), 1.0).pow(3).sum().backward()
    parameters = dict(intervention.named_parameters())
    assert parameters
    for key, parameter in parameters.items():
        assert parameter.requires_grad, key
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


@each_variant
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("autocast", [False, True])
def test_the_stream_keeps_its_dtype(name: str, options: dict[str, Any], dtype: torch.dtype, autocast: bool) -> None:
    """The result has the dtype and the shape of the stream, inside torch.autocast too."""
    intervention, h = build(name, options, init_weights=False), stream(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        for tokens, gradients in product((None, TOKENS), (True, False)):
            with torch.set_grad_enabled(gradients):
                steered = intervention.steer(h, 1.0, tokens)
            assert steered.dtype == dtype
            assert steered.shape == h.shape


@each_variant
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_mask_selects_tokens(name: str, options: dict[str, Any], dtype: torch.dtype) -> None:
    """Where the mask is false the stream keeps its bits; where it is true it is what it is without a mask."""
    intervention, h = build(name, options, init_weights=False), stream(dtype)
    everywhere, selected = intervention.steer(h, 1.0), intervention.steer(h, 1.0, TOKENS)
    assert torch.equal(selected[~TOKENS], h[~TOKENS])
    torch.testing.assert_close(selected[TOKENS], everywhere[TOKENS])


@each_variant
def test_strength_scales_the_shift(name: str, options: dict[str, Any]) -> None:
    """h + s shift(h): the difference to h is proportional to s, also for negative s."""
    intervention, h = build(name, options, init_weights=False).double(), stream(torch.float64)
    shift = intervention.steer(h, 1.0) - h
    for strength in (-1.0, 0.0, 2.5):
        torch.testing.assert_close(intervention.steer(h, strength) - h, strength * shift)


@each_variant
def test_a_constant_shift_is_what_is_added(name: str, options: dict[str, Any]) -> None:
    """One that calls its shift constant adds just that vector; one that does not adds different ones."""
    intervention, h = build(name, options, init_weights=False), stream()
    constant = intervention.constant_shift()
    shift = intervention.steer(h, 1.0) - h
    if constant is None:
        assert shift.flatten(0, 1).std(0).max() > 1e-3
    else:
        torch.testing.assert_close(shift, constant.detach().expand_as(shift))


@each_variant
def test_the_state_dict_is_all_there_is(name: str, options: dict[str, Any]) -> None:
    """Another instance with the same state dict steers alike, bit for bit: nothing lives outside it."""
    one, other, h = build(name, options, init_weights=False), build(name, options), stream()
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.steer(h, 0.5), other.steer(h, 0.5))


@each_variant
def test_the_representation_says_what_it_is(name: str, options: dict[str, Any]) -> None:
    """repr names the width and each option that was chosen."""
    text = repr(build(name, options))
    assert f"width={WIDTH}" in text
    for field, value in options.items():
        assert f"{field}={value!r}" in text


@pytest.mark.parametrize("rank", [0, -1, WIDTH + 1])
@pytest.mark.parametrize("name", [name for name in intervention_names() if "rank" in get_intervention(name).uses])
def test_a_rank_that_cannot_be(name: str, rank: int) -> None:
    """A rank below 1 or above the width is an error that names both."""
    with pytest.raises(ValueError, match=rf"r={rank} must lie between 1 and the width of the site, {WIDTH}"):
        build(name, {"rank": rank})


@pytest.mark.parametrize(("name", "options", "count"), [
    ("vector", {}, WIDTH),
    ("low_rank", {"rank": 3}, 2 * WIDTH * 3),
    ("low_rank", {"rank": 3, "bias": True}, 2 * WIDTH * 3 + WIDTH),
    ("low_rank", {"rank": 3, "activation": "silu", "normalize": True}, 2 * WIDTH * 3),
])  # fmt: skip
def test_parameter_counts(name: str, options: dict[str, Any], count: int) -> None:
    """d for the vector, 2 d r for the low-rank map, d more with a bias."""
    assert sum(parameter.numel() for parameter in build(name, options).parameters()) == count
