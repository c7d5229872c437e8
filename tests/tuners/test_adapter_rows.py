"""Rows of a batch with adapters of their own, in training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor
from torch.testing import assert_close

from tiny_models import draw_adapters, tiny_model, token_ids
from trimtab import SteeringConfig, prompt_lengths
from trimtab.tuners.steering import SteeringLayer, adapter_rows

IDS = token_ids(2, 8)
CONFIGS: dict[str, dict[str, Any]] = {
    "a": {"r": 3},
    "b": {"intervention": "loreft", "r": 2, "positions": "first_last(1,2)"},
    "c": {"intervention": "vector", "site": "mlp", "layers": [1]},
}


def build(name: str, *adapters: str) -> PeftModel:
    """A model with these adapters, drawn at random, all active, in training mode."""
    first, *others = adapters
    model = get_peft_model(tiny_model(name), SteeringConfig(**CONFIGS[first]), adapter_name=first)
    for other in others:
        model.add_adapter(other, SteeringConfig(**CONFIGS[other]))
    for adapter in adapters:
        generator = torch.Generator().manual_seed(ord(adapter))
        for key, parameter in model.named_parameters():
            if f".{adapter}." in key:
                parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    model.base_model.set_adapter(list(adapters))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # GPT-2 and OPT would draw other numbers for other rows
    return model.train()


def loss(model: PeftModel, rows: Tensor, labels: Tensor) -> Tensor:
    """A loss that weighs every logit differently, of some rows."""
    weights = torch.randn(labels.shape[1:], generator=torch.Generator().manual_seed(1))
    with prompt_lengths(model, [5] * len(rows)):
        logits = model(input_ids=rows).logits
    return (logits.log_softmax(-1).gather(-1, labels[..., None])[..., 0] * weights).sum()


def gradients(model: PeftModel, adapter: str) -> dict[str, Tensor]:
    """The gradients of one adapter."""
    named = model.named_parameters()
    return {name: parameter.grad for name, parameter in named if f".{adapter}." in name and parameter.grad is not None}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", ["llama", "gpt2", "opt"])
def test_each_adapter_learns_from_its_own_rows(name: str, checkpointing: bool) -> None:
    """Its gradients are those that it has when these rows are the batch and it is the only adapter."""
    together = build(name, "a", "b", "c")
    if checkpointing:
        together.gradient_checkpointing_enable({"use_reentrant": False})
    labels = token_ids(2, 8, seed=3)
    with adapter_rows(together, ["b", "__base__", "c", "a"]):
        loss(together, IDS.repeat(4, 1), labels.repeat(4, 1)).backward()
    for adapter in CONFIGS:
        alone = build(name, adapter)
        loss(alone, IDS, labels).backward()
        wanted = gradients(alone, adapter)
        found = gradients(together, adapter)
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            assert_close(found[key], value, rtol=1e-4, atol=1e-5, msg=key)


def test_a_row_for_each_name() -> None:
    """With as many names as rows, in any order, every row is what its adapter alone makes of it."""
    model = build("llama", "a", "b", "c").eval()
    ids = token_ids(4, 8)
    with torch.no_grad(), prompt_lengths(model, [5] * 4):
        with adapter_rows(model, ["c", "a", "c", "b"]):
            mixed = model(input_ids=ids).logits
        for row, adapter in enumerate("cacb"):
            model.set_adapter(adapter)
            assert_close(mixed[row], model(input_ids=ids).logits[row], rtol=1e-5, atol=1e-5)


def test_names_and_rows_are_checked() -> None:
    """An unknown adapter with the nearest, a merged one, and rows that do not split; afterwards all is as before."""
    model = build("llama", "a", "c")
    before = model(input_ids=IDS).logits
    with pytest.raises(ValueError, match="Unknown adapter 'd'"), adapter_rows(model, ["a", "d"]):
        pass
    with pytest.raises(ValueError, match="same as the number of inputs"), adapter_rows(model, ["a", "c", "a"]):
        model(input_ids=IDS)
    assert torch.equal(model(input_ids=IDS).logits, before)
    biased = get_peft_model(tiny_model("gpt2"), SteeringConfig(intervention="vector"))
    draw_adapters(biased)
    biased.merge_adapter()
    with pytest.raises(ValueError, match="merged"), adapter_rows(biased, ["default"]):
        pass


def test_blocks_can_be_nested() -> None:
    """The inner one counts, then the outer one again."""
    model = build("llama", "a", "c")
    context = next(module.context for module in model.modules() if isinstance(module, SteeringLayer))
    with adapter_rows(model, ["a", "c"]):
        with adapter_rows(model, ["c"]):
            assert context.adapter_rows == ("c",)
        assert context.adapter_rows == ("a", "c")
    assert context.adapter_rows is None
