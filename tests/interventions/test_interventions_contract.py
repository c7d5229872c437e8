"""What every registered intervention promises, with every option that it knows."""

from __future__ import annotations

from dataclasses import fields
from itertools import product
from typing import Any

import pytest
import torch

from trimtab.interventions import Intervention, InterventionOptions, get_intervention, intervention_names
from trimtab.interventions.activations import ACTIVATIONS
from trimtab.interventions.base import Heads

WIDTH = 16
CHOICES: dict[str, list[Any]] = {
    "activation": [None, *sorted(ACTIVATIONS)],
    "bias": [False, True],
    "normalize": [False, True],
    "heads": [None, Heads(layer=2, count=4, selected=(1, 3), total=5)],
}
EXTREMES = [{"rank": 1}, {"rank": WIDTH}]


def variants() -> list[Any]:
    """Each intervention with each combination of the options that it reads, and with the extreme ranks."""
    found = []
    for name in intervention_names():
        uses = get_intervention(name).uses
        used = [field for field in CHOICES if field in uses]
        options = [dict(zip(used, values, strict=True)) for values in product(*map(CHOICES.get, used))]
        for chosen in options + [extreme for extreme in EXTREMES if extreme.keys() <= uses]:
            text = "-".join(f"{field}={value}" for field, value in chosen.items())
            found.append(pytest.param(name, chosen, id=f"{name}-{text}"))
    return found


def build(name: str, options: dict[str, Any], **more: Any) -> Intervention:
    """An intervention for a stream of WIDTH numbers, in evaluation mode: gates are not drawn at random."""
    return get_intervention(name)(WIDTH, InterventionOptions(**{"rank": 4, **options, **more})).eval()


def stream(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """(3 rows, 5 tokens, WIDTH)."""
    return torch.randn(3, 5, WIDTH).to(dtype)


TOKENS = torch.arange(15).view(3, 5) % 2 == 0
each_variant = pytest.mark.parametrize(("name", "options"), variants())
each_noop = pytest.mark.parametrize(
    ("name", "options"), [each for each in variants() if get_intervention(each.values[0]).starts_as_noop]
)


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


@each_noop
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fresh_one_changes_nothing(name: str, options: dict[str, Any], dtype: torch.dtype) -> None:
    """At its start the steered stream is the stream, bit for bit, at any strength and on any tokens."""
    intervention, h = build(name, options), stream(dtype)
    for strength, tokens, gradients in product((1.0, -7.5), (None, TOKENS), (True, False)):
        with torch.set_grad_enabled(gradients):
            assert torch.equal(intervention.steer(h, strength, tokens), h)


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
def test_a_fresh_one_can_leave_its_start(name: str, options: dict[str, Any]) -> None:
    """At its start some parameter gets a gradient that is not zero, or training would never begin."""
    intervention = build(name, options)
    (intervention.steer(stream(), 1.0) ** 3).sum().backward()
    assert any(parameter.grad.abs().sum() > 0 for parameter in intervention.parameters())


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
