"""The constraint by construction: what the steering half writes is orthogonal to what the LoRA half writes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from peft import get_peft_model
from torch import Tensor, nn
from torch.testing import assert_close

from joint_models import BOUND, IDS, WRITERS, draw, joint_model, logits, lora, overlaps, written_by_lora
from tiny_models import steering_layers, tiny_model
from trimtab import SteeringConfig

MLP, ATTENTION = ("mlp.down_proj",), ("self_attn.o_proj",)


def shifts(model: nn.Module, adapter: str = "default") -> list[Tensor]:
    """What each steering layer adds to random hidden states, in float64: (tokens, d)."""
    found = []
    for layer in steering_layers(model):
        h = torch.randn(40, layer.in_features, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        found.append((layer.intervention(adapter).steer(h, 1.0) - h).detach())
    return found


@pytest.mark.parametrize(
    ("constrained_to", "weights"),
    [(["down_proj"], MLP), (["o_proj"], ATTENTION), (["down_proj", "o_proj"], MLP + ATTENTION)],
)
@pytest.mark.parametrize("options", [{}, {"activation": "silu", "use_bias": True}, {"intervention": "vector"}])
def test_shifts_are_orthogonal_to_what_lora_writes(
    constrained_to: list[str], weights: tuple[str, ...], options: dict[str, Any]
) -> None:
    """No shift of any hidden state has a part in col(B), bias and vector included; naive ones have."""
    for constraint, lowest, highest in (("orthogonal", 0.0, 1e-12), ("none", 0.1, 1.0)):
        base = tiny_model("llama").double()
        model = draw(joint_model(base, constraint=constraint, constrained_to=constrained_to, **options))
        for shift, factor in zip(shifts(model), written_by_lora(model, weights), strict=True):
            Q = torch.from_numpy(np.linalg.qr(factor)[0])
            share = float((shift @ Q).norm() / shift.norm())
            assert lowest <= share <= highest, (constraint, share)


@pytest.mark.parametrize("family", WRITERS)
def test_every_family(family: str) -> None:
    """By whatever name the MLP's and attention's writing matrices go."""
    model = draw(joint_model(family, constrained_to=["down_proj", "o_proj"]))
    factors = written_by_lora(model, WRITERS[family])
    assert [factor.shape for factor in factors] == [(24, 8)] * 3
    assert max(overlaps(model, factors)) <= BOUND
    free = [layer.intervention("default").parametrizations.up.original for layer in steering_layers(model)]
    for parameter, layer in zip(free, steering_layers(model), strict=True):
        assert not torch.equal(parameter, layer.intervention("default").up)


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text", "olmo2"])
@pytest.mark.parametrize("role", ["down_proj", "o_proj"])
def test_behind_a_norm(family: str, role: str) -> None:
    """Where a norm follows the matrix: what LoRA changes in the norm's output, along that output apart, is avoided."""
    model = draw(joint_model(tiny_model(family).double(), constrained_to=[role]))
    layers = model.get_base_model().model.layers
    for layer, shift in zip(layers, shifts(model), strict=True):
        mlp = role == "down_proj"
        matrix = layer.mlp.down_proj if mlp else layer.self_attn.o_proj
        norm = layer.post_feedforward_layernorm if mlp else layer.post_attention_layernorm
        y = torch.randn(60, matrix.in_features, dtype=torch.float64)
        with torch.no_grad():
            adapted, plain = norm(matrix(y)), norm(matrix.base_layer(y))
            # adapted = c * plain + D B A y / rms: the part that LoRA wrote, for c = the ratio of the two rms.
            scale = matrix.base_layer(y).norm(dim=-1) / matrix(y).norm(dim=-1)
        written = adapted - scale[:, None] * plain
        Q = torch.linalg.svd(written.T)[0][:, :4]
        # The norm computes in float32, and adds an epsilon.
        assert (written - (written @ Q) @ Q.T).norm().item() < 1e-5 * written.norm()  # it has LoRA's rank
        assert float((shift @ Q).norm() / shift.norm()) < 1e-5


def test_nothing_is_removed_at_the_start() -> None:
    """B = 0 spans nothing: the effective W_up is the parameter bit for bit."""
    model = joint_model(init_weights=False)
    for layer in steering_layers(model):
        intervention = layer.intervention("default")
        assert torch.equal(intervention.up, intervention.parametrizations.up.original)


def test_gradients() -> None:
    """W_up's gradient is the unconstrained one, projected; B's has no term from Q."""
    model = draw(joint_model())
    naive = draw(joint_model(constraint="none"))
    with torch.no_grad():
        for layer, other in zip(steering_layers(model), steering_layers(naive), strict=True):
            other.intervention("default").up.copy_(layer.intervention("default").up)
    for one in (model, naive):
        one(input_ids=IDS, labels=IDS).loss.backward()
    theirs = dict(naive.named_parameters())
    factors = iter(written_by_lora(model))
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        wanted = theirs[name.replace("parametrizations.up.original", "up")].grad
        assert wanted.norm() > 1e-4
        if name.endswith("up.original"):
            Q = torch.from_numpy(np.linalg.qr(next(factors))[0]).float()
            assert (Q.T @ wanted).norm() > 1e-2 * wanted.norm()
            wanted = wanted - Q @ (Q.T @ wanted)
        assert_close(parameter.grad, wanted, rtol=1e-4, atol=1e-6)


def test_the_published_codes_side() -> None:
    """constraint="input": W_down's rows are orthogonal to col(B) and W_up is free, as in the paper's public code."""
    model = draw(joint_model(constraint="input"))
    for layer, factor in zip(steering_layers(model), written_by_lora(model), strict=True):
        Q = np.linalg.qr(factor)[0]
        down = layer.intervention("default").down.detach().double().numpy()
        assert np.linalg.norm(down @ Q) <= BOUND * np.linalg.norm(down)
    assert min(overlaps(model, written_by_lora(model))) > 0.05


@pytest.mark.parametrize("site", ["mlp", "attention"])
def test_other_sites_of_the_stream(site: str) -> None:
    """Shifts of what a sub-layer adds to the stream are constrained in the same way."""
    model = draw(joint_model(site=site))
    assert max(overlaps(model, written_by_lora(model))) <= BOUND
    assert logits(model).isfinite().all()


def test_a_layer_without_lora_is_free() -> None:
    """Where LoRA leaves the writing matrix alone there is nothing to avoid: W_up is the parameter itself."""
    half = lora(target_modules=["down_proj"], layers_to_transform=[0, 2])
    model = draw(joint_model(lora=half))
    constrained = [hasattr(layer.intervention("default"), "parametrizations") for layer in steering_layers(model)]
    assert constrained == [True, False, True]


def test_lora_elsewhere_is_an_error() -> None:
    """LoRA on q and v alone never writes to the stream through the MLP: the constraint would be empty."""
    base = tiny_model("llama")
    names = list(dict(base.named_modules()))
    half = lora(target_modules=["q_proj", "v_proj"])
    with pytest.raises(ValueError, match=r"needs LoRA on down_proj \('model.layers.0.mlp.down_proj' and so on\)"):
        joint_model(base, lora=half)
    assert list(dict(base.named_modules())) == names
    with pytest.raises(ValueError, match="'c_proj'"):
        joint_model("gpt2", lora=lora(target_modules=["c_attn"]))
    assert joint_model(base, lora=half, constraint="none")


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_a_mixture_of_experts(family: str) -> None:
    """It writes with as many matrices as it has experts: an error says what can be constrained instead."""
    half = lora(target_modules=["q_proj", "v_proj", "o_proj"])
    with pytest.raises(ValueError, match=r"mixture of experts.*constrained_to=\['o_proj'\]"):
        joint_model(family, lora=half)
    model = draw(joint_model(family, lora=half, constrained_to=["o_proj"]))
    assert max(overlaps(model, written_by_lora(model, ATTENTION))) <= BOUND


def test_a_norm_of_the_whole_stream() -> None:
    """OPT-350M normalises the stream after the addition: no shift behind that norm can be compared with B."""
    with pytest.raises(ValueError, match="norm of the whole stream"):
        joint_model(tiny_model("opt", do_layer_norm_before=False))


def test_without_a_constraint_it_is_steering_beside_lora() -> None:
    """constraint="none" computes what a LoRA and a steering adapter in one model compute."""
    model = draw(joint_model(constraint="none"))
    other = get_peft_model(get_peft_model(tiny_model("llama"), lora()), SteeringConfig(r=3)).eval()
    theirs = {
        n.replace("base_model.model.base_model.model", "base_model.model"): p for n, p in other.named_parameters()
    }
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            theirs[name].copy_(parameter)
    assert torch.equal(logits(model), logits(other))
