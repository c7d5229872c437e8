"""The summed gradients at a site, against autograd's gradient of a zero map that is put there by other means."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch import Tensor
from torch.testing import assert_close

from site_maps import loss_of, read, shifted, two_batches
from tiny_models import steering_layers, tiny_model
from trimtab import SteeringConfig
from trimtab.tuners.steering.gradient_sums import GradientSums, summed_gradients

FAMILIES = ["llama", "gemma2", "granite", "gpt2"]
SITES = ["block", "mlp", "mlp_input", "attention"]
LAYERS = 3


def sums_at(family: str, losses: Callable[[Any], Iterable[Tensor]] = two_batches, **options: Any) -> list[GradientSums]:
    """The sums of each layer of a tiny model in float64."""
    model = get_peft_model(tiny_model(family).double(), SteeringConfig(r=1, **options))
    with summed_gradients([(layer, "default") for layer in steering_layers(model)]) as sums:
        for loss in losses(model):
            loss.backward()
    return [sums[index] for index in range(LAYERS)]


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("family", FAMILIES)
def test_they_are_the_gradients_of_a_map_and_of_a_vector(family: str, site: str, normalize: bool) -> None:
    """dloss/dM at M = 0 and dloss/dv at v = 0 of m h + M x + v, behind the norms of a family and its multiplier."""
    found = sums_at(family, site=site, normalize=normalize)
    model = tiny_model(family).double()
    width = model.config.hidden_size
    for layer in range(LAYERS):
        full = torch.zeros(width, width, dtype=torch.float64, requires_grad=True)
        vector = torch.zeros(width, dtype=torch.float64, requires_grad=True)
        with shifted(model, family, site, layer, lambda h: read(h, normalize) @ full.T + vector):  # noqa: B023
            for loss in two_batches(model):
                loss.backward()
        # The families' own RMS norms compute in float32, whatever the model's dtype.
        tolerance = {"rtol": 1e-10, "atol": 1e-12} if family == "gpt2" else {"rtol": 1e-4, "atol": 1e-5}
        assert found[layer].matrix.dtype == torch.float64
        assert full.grad.abs().max() > 1e-3
        assert_close(found[layer].matrix, full.grad, **tolerance)
        assert_close(found[layer].vector, vector.grad, **tolerance)


@pytest.mark.parametrize("site", SITES)
def test_unsteered_tokens_are_left_out(site: str) -> None:
    """With positions all_but_first(1) the first token of each row adds nothing, to the vector neither."""
    found = sums_at("gpt2", site=site, positions="all_but_first(1)")
    model = tiny_model("gpt2").double()
    width = model.config.hidden_size
    full = torch.zeros(width, width, dtype=torch.float64, requires_grad=True)
    vector = torch.zeros(width, dtype=torch.float64, requires_grad=True)
    later = (torch.arange(9) > 0).double()[:, None]
    with shifted(model, "gpt2", site, 1, lambda h: (h @ full.T + vector) * later):
        for loss in two_batches(model):
            loss.backward()
    assert_close(found[1].matrix, full.grad)
    assert_close(found[1].vector, vector.grad)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("positions", ["all", "all_but_first(1)"])
def test_padding_adds_nothing(family: str, positions: str) -> None:
    """Rows one by one, or together with five columns of padding: the same sums."""
    one_by_one = [slice(row, row + 1) for row in range(3)]
    alone = sums_at(family, lambda model: (loss_of(model, row) for row in one_by_one), positions=positions)
    padded = sums_at(family, lambda model: [loss_of(model, pad=5)], positions=positions)
    for one, other in zip(alone, padded, strict=True):
        assert_close(one.matrix, other.matrix, rtol=1e-4, atol=1e-5)
        assert_close(one.vector, other.vector, rtol=1e-4, atol=1e-5)
        assert one.typical_length == pytest.approx(other.typical_length, rel=1e-5)


def test_a_pass_without_gradients_adds_nothing_and_hooks_are_removed() -> None:
    """A reference pass in between is not counted; behind the block nothing is listened to any more."""
    model = get_peft_model(tiny_model("gpt2").double(), SteeringConfig(r=1))
    layers = steering_layers(model)
    with summed_gradients([(layer, "default") for layer in layers]) as sums:
        with torch.no_grad():
            loss_of(model)
        assert not sums
        loss_of(model).backward()
        once = sums[0].matrix.clone()
        loss_of(model).backward()
        assert_close(sums[0].matrix, 2 * once)
    assert not any(layer._forward_hooks for layer in layers)


def test_a_bfloat16_stream_is_summed_in_float32() -> None:
    """The sums are float32, and near those of the same model in float32."""
    exact = sums_at("llama")
    model = get_peft_model(tiny_model("llama").bfloat16(), SteeringConfig(r=1))
    with summed_gradients([(layer, "default") for layer in steering_layers(model)]) as sums:
        for loss in two_batches(model):
            loss.backward()
    for index, wanted in enumerate(exact):
        assert sums[index].matrix.dtype == torch.float32
        error = torch.linalg.matrix_norm(sums[index].matrix - wanted.matrix)
        assert error < 0.1 * torch.linalg.matrix_norm(wanted.matrix)
