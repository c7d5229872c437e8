"""Joint adapters as PEFT users expect them: start, freezing, switching, rows, positions, a LoRA beside them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict
from torch.testing import assert_close

from joint_models import IDS, alone, draw, joint_model, logits, lora, trained, with_two
from tiny_models import steering_layers, tiny_model
from trimtab import JointConfig, prompt_lengths

LAYERS, WIDTH, INNER, KEYS, VALUES = 3, 24, 40, 16, 32  # of the tiny Llama: heads x head_dim = 4 x 8


@pytest.mark.parametrize("constraint", ["orthogonal", "none", "input"])
def test_a_fresh_adapter_changes_nothing(constraint: str) -> None:
    """Bit for bit."""
    base = tiny_model("llama")
    wanted = logits(base)
    assert torch.equal(logits(joint_model(base, constraint=constraint)), wanted)


def test_what_trains() -> None:
    """The factors of both halves and nothing else; their number is LoRA's and steering's."""
    model = joint_model(r=3, lora=lora(r=4))
    names = trained(model)
    assert all("lora_" in name or "steering_interventions" in name for name in names)
    attention = (WIDTH + VALUES) + 2 * (WIDTH + KEYS) + (VALUES + WIDTH)
    of_lora = LAYERS * 4 * (attention + 3 * (WIDTH + INNER))
    of_steering = LAYERS * 2 * 3 * WIDTH
    assert model.get_nb_trainable_parameters()[0] == of_lora + of_steering
    assert sum(tensor.numel() for tensor in names.values()) == of_lora + of_steering


def test_the_second_adapter_does_not_train_until_it_is_active() -> None:
    """Adding an adapter leaves the first one trainable and alone; set_adapter switches both halves."""
    model = joint_model()
    before = set(trained(model))
    model.add_adapter("second", JointConfig(r=2, lora=lora(r=2)))
    assert set(trained(model)) == before
    model.set_adapter("second")
    after = set(trained(model))
    assert after == {name.replace(".default.", ".second.") for name in before}


def test_disabled_is_the_base() -> None:
    """Bit for bit, and back."""
    base = tiny_model("llama")
    wanted = logits(base)
    model = draw(joint_model(base))
    adapted = logits(model)
    assert (adapted - wanted).abs().max() > 0.1
    with model.disable_adapter():
        assert torch.equal(logits(model), wanted)
    assert torch.equal(logits(model), adapted)


def test_each_of_two_adapters_is_itself() -> None:
    """Active alone, each computes what it computes in a model of its own; deleting one leaves the other."""
    model = with_two()
    for name in ("default", "second", "default"):
        model.set_adapter(name)
        assert torch.equal(logits(model), logits(alone(model, name)))
    wanted = logits(alone(model, "second"))
    model.delete_adapter("default")
    assert torch.equal(logits(model), wanted)
    assert not any(".default." in name for name, _ in model.named_parameters())
    model.add_adapter("third", JointConfig(r=2, lora=lora(r=2)))
    assert torch.equal(logits(model), wanted)


def test_other_places_in_a_second_adapter() -> None:
    """A second adapter may adapt other matrices and other layers than the first."""
    model = with_two(layers=[1], lora=lora(r=2, target_modules=["down_proj"], layers_to_transform=[1]))
    for name in ("second", "default"):
        model.set_adapter(name)
        assert torch.equal(logits(model), logits(alone(model, name)))


def test_an_adapter_per_row() -> None:
    """`adapter_names` gives every row both halves of its adapter; the base row gets none."""
    model = with_two()
    ids = IDS[:1].repeat(3, 1)
    names = ["second", "__base__", "default"]
    with torch.no_grad():
        mixed = model(input_ids=ids, adapter_names=names).logits
        for row, name in enumerate(names):
            one = tiny_model("llama") if name == "__base__" else alone(model, name)
            assert_close(mixed[row], one(input_ids=ids[:1]).logits[0], rtol=1e-4, atol=1e-5)
    model.train()
    with pytest.raises(ValueError, match="in training mode"):
        model(input_ids=ids, adapter_names=names)


def test_modules_to_save() -> None:
    """A further module is trained in full and belongs to the adapter."""
    model = joint_model(modules_to_save=["lm_head"])
    assert "base_model.model.lm_head.modules_to_save.default.weight" in trained(model)
    assert "base_model.model.lm_head.weight" in get_peft_model_state_dict(model)


def test_positions() -> None:
    """The steering half keeps to its positions, the LoRA half is in the weights: on no position it is LoRA alone."""
    model = draw(joint_model(positions="generated"))
    with prompt_lengths(model, [8, 8]), torch.no_grad():
        found = model(input_ids=IDS).logits
    for layer in steering_layers(model):
        layer.strengths["default"] = 0.0
    assert torch.equal(found, logits(model))


def test_by_transformers_methods() -> None:
    """model.add_adapter, switching, disabling and deleting without a PeftModel."""
    model: Any = tiny_model("llama")
    wanted = logits(model)
    model.add_adapter(JointConfig(r=3, lora=lora()), "one")
    model.add_adapter(JointConfig(r=2, lora=lora(r=2)), "two")
    draw(model, seed=0, adapter="one")
    draw(model, seed=1, adapter="two")
    model.set_adapter("one")
    one = logits(model)
    assert torch.equal(one, logits(draw(joint_model(), seed=0)))
    model.set_adapter("two")
    assert not torch.equal(logits(model), one)
    model.disable_adapters()
    assert torch.equal(logits(model), wanted)
    model.enable_adapters()
    model.set_adapter("one")
    model.delete_adapter("two")
    assert torch.equal(logits(model), one)
    assert not any(".two." in name for name, _ in model.named_parameters())


def test_a_plain_lora_and_a_joint_adapter_beside_each_other() -> None:
    """transformers allows several types: the joint adapter's LoRA half does not take over the other LoRA."""
    model: Any = tiny_model("llama")
    model.add_adapter(LoraConfig(r=2, target_modules=["q_proj"]), "plain")
    draw(model, adapter="plain")
    wanted = logits(model)
    model.add_adapter(JointConfig(r=3, lora=lora()), "joint")
    assert set(model.peft_config) == {"plain", "joint"}
    assert type(model.peft_config["plain"]) is LoraConfig
    model.set_adapter("plain")
    assert torch.equal(logits(model), wanted)
