"""LoFiT's selection of heads by the norm of their scalers, and JoLA's gates as a report."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model

from tiny_models import steering_layers, tiny_model
from trimtab import head_gates, select_heads
from trimtab.tuners.steering import head_norms
from tuners.steered_heads import heads_config


def scaled(**options: Any) -> PeftModel:
    """A model whose scalers have norms that are known: 3 in head (2, 1), 2 in (0, 3), and 1 elsewhere."""
    model = get_peft_model(tiny_model("qwen3"), heads_config("head_scale", **options))
    with torch.no_grad():
        for layer in steering_layers(model):
            scale = layer.intervention("default")
            for row, head in zip(scale.scale, scale.heads.selected, strict=True):
                row.zero_()[head % 8] = -{(2, 1): 3.0, (0, 3): 2.0}.get((scale.heads.layer, head), 1.0)
    return model


def test_the_largest_norms_are_selected() -> None:
    """The best heads over all layers, the largest norm first; equal ones in the order of layers and heads."""
    assert select_heads(scaled(), 2) == [(2, 1), (0, 3)]
    assert select_heads(scaled(), 4) == [(2, 1), (0, 3), (0, 0), (0, 1)]
    assert head_norms(scaled())[:2] == [(2, 1, 3.0), (0, 3, 2.0)]
    assert select_heads(scaled(layers=[0, 1]), 1) == [(0, 3)]
    assert len(select_heads(scaled(), 12)) == 12


def test_the_selection_is_what_the_second_stage_takes() -> None:
    """The pairs go into `heads` as they are."""
    heads = select_heads(scaled(), 2)
    model = get_peft_model(tiny_model("qwen3"), heads_config("head_bias", heads=heads))
    assert model.peft_config["default"].heads == [[0, 3], [2, 1]]
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 2 * 8


@pytest.mark.parametrize("k", [0, 13, 2.0, True])
def test_a_number_of_heads_that_cannot_be(k: Any) -> None:
    """None, or more than there are, is an error that says how many there are."""
    with pytest.raises(ValueError, match="between 1 and 12"):
        select_heads(scaled(), k)


def test_only_scalers_rank_heads() -> None:
    """A model without LoFiT's first stage, and an adapter of another name, are refused."""
    model = get_peft_model(tiny_model("qwen3"), heads_config("head_bias"))
    with pytest.raises(ValueError, match="no adapter 'default' with the intervention 'head_scale'"):
        select_heads(model, 1)
    with pytest.raises(ValueError, match="no adapter 'other'"):
        select_heads(scaled(), 1, "other")


def test_gates_are_reported_by_layer_and_head() -> None:
    """The gates that evaluation uses, and which of them are open."""
    model = get_peft_model(tiny_model("qwen3"), heads_config("jola", heads=[[0, 1], [2, 3]]))
    with torch.no_grad():
        for layer, (scale, bias) in zip(steering_layers(model), ((-50.0, 50.0), (0.0, -50.0)), strict=True):
            layer.intervention("default").scale_gate.fill_(scale)
            layer.intervention("default").bias_gate.fill_(bias)
    first, second = head_gates(model)
    assert (first.layer, first.head, first.scale, first.bias) == (0, 1, 0.0, 1.0)
    assert (first.scaled, first.shifted) == (False, True)
    assert (second.layer, second.head, second.scaled, second.shifted) == (2, 3, True, False)
    assert second.scale == pytest.approx(0.5)
    assert head_gates(scaled()) == []
