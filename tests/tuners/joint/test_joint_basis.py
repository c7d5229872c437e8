"""The basis of what LoRA writes: of any factor, after every change of it, in every precision."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from peft import get_peft_model
from torch import nn

from joint_models import BOUND, IDS, draw, joint_model, logits, lora, overlaps, written_by_lora
from tiny_models import steering_layers, tiny_model
from trimtab import JointConfig
from trimtab.tuners.joint import constraint


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_rank_deficient_factors(rank: int, scale: float) -> None:
    """Of four dependent columns only their span counts, at any scale."""
    model = draw(joint_model())
    directions = torch.randn(24, rank) if rank else torch.zeros(24, 1)
    for name, parameter in model.named_parameters():
        if "down_proj.lora_B" in name:
            parameter.data = scale * directions @ torch.randn(directions.shape[1], 4)
    before = [layer.intervention("default").parametrizations.up.original for layer in steering_layers(model)]
    factors = [directions.double().numpy()] * 3
    if rank:
        assert max(overlaps(model, factors)) <= BOUND
    for layer, free in zip(steering_layers(model), before, strict=True):
        removed = torch.linalg.matrix_rank((free - layer.intervention("default").up).double(), rtol=1e-4)
        assert int(removed) == rank


@pytest.mark.parametrize("condition", [1e2, 1e4])
def test_nearly_dependent_columns(condition: float) -> None:
    """Columns that agree to a few digits span what they span: a direction of 1e-4 of B's size is avoided exactly."""
    model = draw(joint_model())
    for name, parameter in model.named_parameters():
        if "down_proj.lora_B" in name:
            parameter.data = torch.randn(24, 1) + torch.randn(24, 4) / condition
    assert max(overlaps(model, written_by_lora(model))) <= BOUND


def test_a_factor_within_the_span() -> None:
    """Of W_up = B M hardly anything is left, and what is left is orthogonal too."""
    model = draw(joint_model())
    layers = model.get_base_model().model.layers
    with torch.no_grad():
        for layer in layers:
            B = layer.mlp.down_proj.lora_B["default"].weight
            free = layer.steering.intervention("default").parametrizations.up.original
            free.copy_(B @ torch.randn(4, 3) + 1e-3 * torch.randn(24, 3))
    assert max(overlaps(model, written_by_lora(model))) <= BOUND


def by_optimiser(parameters: list[nn.Parameter], **options: Any) -> None:
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    torch.optim.AdamW(parameters, lr=0.1, **options).step()


CHANGES: dict[str, Callable[[nn.Module, list[nn.Parameter]], Any]] = {
    "optimiser": lambda _, ps: by_optimiser(ps, foreach=False),
    "foreach": lambda _, ps: by_optimiser(ps, foreach=True),
    "fused": lambda _, ps: by_optimiser(ps, fused=True),
    "data": lambda _, ps: [p.data.copy_(torch.randn_like(p)) for p in ps],
    "storage": lambda _, ps: [setattr(p, "data", torch.randn_like(p)) for p in ps],
    "one_number": lambda _, ps: [p.data.view(-1)[:1].add_(1) for p in ps],
    "state_dict": lambda m, _: m.load_state_dict({n: torch.randn_like(t) for n, t in m.state_dict().items()}),
    "assigned": lambda m, _: m.load_state_dict(
        {n: torch.randn_like(t) for n, t in m.state_dict().items()}, assign=True
    ),
    "dtype": lambda m, _: m.to(torch.bfloat16).to(torch.float32),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_basis_follows_every_change_of_B(change: str) -> None:  # noqa: N802  # the matrix
    """However B is written, past autograd's version counters too, the next forward pass avoids the new one."""
    model = draw(joint_model())
    logits(model)
    before = written_by_lora(model)
    CHANGES[change](model, [p for n, p in model.named_parameters() if "down_proj.lora_B" in n])
    logits(model)
    after = written_by_lora(model)
    assert all(not np.array_equal(one, other) for one, other in zip(before, after, strict=True))
    assert max(overlaps(model, after)) <= BOUND


def test_the_basis_is_computed_once_per_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several forward passes, with gradients and without, factorise once a layer; a step asks for one more."""
    calls = []
    original = constraint.padded_column_basis
    monkeypatch.setattr(constraint, "padded_column_basis", lambda *a: calls.append(1) or original(*a))
    model = draw(joint_model(use_bias=True))
    for _ in range(3):
        model(input_ids=IDS, labels=IDS).loss.backward()
        logits(model)
    assert len(calls) == 3
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1).step()
    model(input_ids=IDS)
    assert len(calls) == 6


def test_rollouts_in_inference_mode() -> None:
    """A basis that was first needed in inference mode can be trained with."""
    model = draw(joint_model())
    with torch.inference_mode():
        model(input_ids=IDS)
    model(input_ids=IDS, labels=IDS).loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_a_copy_avoids_its_own_lora() -> None:
    """deepcopy: the copy computes the same, and follows its own B and not the original's."""
    model = draw(joint_model())
    other = copy.deepcopy(model)
    assert torch.equal(logits(other), logits(model))
    before = logits(other)
    draw(model, seed=5)
    assert torch.equal(logits(other), before)
    draw(other, seed=6)
    assert max(overlaps(other, written_by_lora(other))) <= BOUND


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16(autocast: bool) -> None:
    """On a bfloat16 base, and under autocast, the effective W_up is a float32 matrix with the full precision."""
    base = tiny_model("llama") if autocast else tiny_model("llama").to(torch.bfloat16)
    model = draw(joint_model(base))
    seen = []
    for layer in steering_layers(model):
        layer.register_forward_hook(lambda layer, *_: seen.append(layer.intervention("default").up))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        model(input_ids=IDS, labels=IDS).loss.backward()
    assert {matrix.dtype for matrix in seen} == {torch.float32}
    for matrix, factor in zip(seen, written_by_lora(model), strict=True):
        Q = torch.from_numpy(np.linalg.qr(factor)[0])
        assert float((Q.T @ matrix.double()).norm() / matrix.norm()) <= BOUND


def test_half_precision_adapters() -> None:
    """Also where the adapter itself is bfloat16 (autocast_adapter_dtype=False)."""
    config = JointConfig(r=3, lora=lora())
    model = get_peft_model(tiny_model("llama").to(torch.bfloat16), config, autocast_adapter_dtype=False)
    draw(model)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.bfloat16}
    assert max(overlaps(model, written_by_lora(model))) <= BOUND
    model(input_ids=IDS, labels=IDS).loss.backward()
