"""Adapters come off without a trace: disabled, unloaded; and a copy of a model is a model of its own."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch import Tensor

from tiny_models import assert_same, draw_adapters, fingerprint, steering_layers, tiny_model, token_ids
from trimtab import SteeringConfig, prompt_lengths, set_strength, strength

IDS = token_ids(2, 8)
KINDS: dict[str, dict[str, Any]] = {
    "block": {"r": 3},
    "vector": {"intervention": "vector", "site": "attention"},
    "heads": {"r": 3, "site": "heads", "layers": [1]},
    "positions": {"r": 3, "site": "mlp_input", "positions": "last_prompt"},
}


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def build(kind: str, name: str = "llama") -> Any:
    model = get_peft_model(tiny_model(name), SteeringConfig(**KINDS[kind])).eval()
    draw_adapters(model)
    return model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_unload(kind: str, name: str) -> None:
    """The base as it was: the same keys and values, no hook, no attribute, its own `generate`, the same logits."""
    base = tiny_model(name)
    before, wanted = fingerprint(base, trainable=False), logits(base)
    model = get_peft_model(base, SteeringConfig(**KINDS[kind])).eval()
    draw_adapters(model)
    model.add_adapter("other", SteeringConfig(r=2, positions="generated"))
    model.generate(input_ids=IDS, max_new_tokens=2, pad_token_id=0)
    unloaded = model.unload()
    assert unloaded is base
    assert_same(before, fingerprint(unloaded, trainable=False))
    assert torch.equal(logits(unloaded), wanted)
    assert "generate" not in vars(unloaded)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unloaded_model_takes_a_new_adapter(kind: str) -> None:
    """It can be adapted again, and steers as the first time."""
    model = build(kind)
    steered = logits(model)
    again = get_peft_model(model.unload(), SteeringConfig(**KINDS[kind])).eval()
    draw_adapters(again)
    assert torch.equal(logits(again), steered)
    assert len(steering_layers(again)) == len(steering_layers(build(kind)))


@pytest.mark.parametrize("kind", KINDS)
def test_disabled(kind: str) -> None:
    """In the block of disable_adapter it is the base bit for bit, when it fails too, in `generate` too."""
    base, model = tiny_model("llama"), build(kind)
    steered = logits(model)
    options = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(base))
        assert torch.equal(model.generate(input_ids=IDS, **options), base.generate(input_ids=IDS, **options))
    with pytest.raises(KeyError), model.disable_adapter():
        raise KeyError
    assert torch.equal(logits(model), steered)


def test_what_does_not_steer_need_not_know() -> None:
    """A pass in training needs no labels where the adapter that would ask is disabled, inactive or at strength 0."""
    model, wanted = build("positions").train(), logits(tiny_model("llama"))
    with model.disable_adapter():
        assert torch.equal(model(input_ids=IDS).logits, wanted)
    with strength(model, 0.0):
        assert torch.equal(model(input_ids=IDS).logits, wanted)
    model.add_adapter("everywhere", SteeringConfig(r=3))
    model.set_adapter("everywhere")
    assert torch.equal(model(input_ids=IDS).logits, wanted)
    model.set_adapter("default")
    with pytest.raises(ValueError, match="labels"):
        model(input_ids=IDS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])  # noqa: S301
def test_a_copy_is_independent(kind: str, how: Any) -> None:
    """It steers alike; training it, turning its dial, taking it off does nothing to the original, nor the reverse."""
    model = build(kind)
    steered = logits(model)
    twin = how(model)
    assert torch.equal(logits(twin), steered)
    for layer, other in zip(steering_layers(model), steering_layers(twin), strict=True):
        assert layer.context is not other.context
        assert other.host is not layer.host
    twin.train()
    twin(input_ids=IDS, labels=IDS).loss.backward() if kind != "positions" else None
    draw_adapters(twin, seed=1)
    set_strength(twin, 0.5)
    twin.eval()
    assert torch.equal(logits(model), steered)
    assert not torch.equal(logits(twin), steered)
    assert all(parameter.grad is None for parameter in model.parameters())
    changed = logits(twin)
    model.unload()
    assert torch.equal(logits(twin), changed)


def test_a_copy_has_its_own_tokens() -> None:
    """What one copy is told of its prompts, and what it generates, is no news to the other."""
    model = build("positions")
    twin = copy.deepcopy(model)
    options = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    wanted, generated = logits(model), model.generate(input_ids=IDS, **options)
    with prompt_lengths(model, [2, 3]):
        assert torch.equal(logits(twin), wanted)
        assert not torch.equal(logits(model), wanted)
    assert torch.equal(twin.generate(input_ids=IDS, **options), generated)
    twin.unload()
    assert torch.equal(model.generate(input_ids=IDS, **options), generated)


def test_a_copied_base_can_be_adapted_apart() -> None:
    """A copy of the bare base inside an adapted model is a base without adapters after unload."""
    model = build("block")
    base = copy.deepcopy(model).unload()
    assert torch.equal(logits(base), logits(tiny_model("llama")))
    assert steering_layers(model)
