"""The dial of a joint adapter, merging its LoRA half, and taking it off: what is left in the model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.testing import assert_close

from joint_models import alone, draw, joint_model, logits, lora, with_two
from tiny_models import assert_same, fingerprint, steering_layers, tiny_model
from trimtab import JointConfig, SteeringConfig, get_strengths, set_strength, strength
from trimtab.tuners.joint import merge_lora, unmerge_lora


def test_the_dial_scales_both_halves() -> None:
    """0 is the base bit for bit, 1 the adapter; in between it is LoRA with s alpha beside steering with s."""
    base = tiny_model("llama")
    wanted = logits(base)
    model = draw(joint_model(base))
    adapted = logits(model)
    with strength(model, 0.0):
        assert torch.equal(logits(model), wanted)
    assert torch.equal(logits(model), adapted)
    with strength(model, 0.5):
        halfway = logits(model)
        assert model.peft_config["default"].strength == 0.5
    other = draw(joint_model(lora=lora(lora_alpha=4)))  # of 8
    for layer in steering_layers(other):
        layer.strengths["default"] = 0.5
    assert_close(halfway, logits(other), rtol=1e-5, atol=1e-6)


def test_the_dial_of_one_of_two_adapters() -> None:
    """The other one keeps its strength, in both halves, also through a wrapper around the model."""
    model = with_two()
    set_strength(nn.Sequential(model), 0.25, "second")
    assert get_strengths(model) == {"default": 1.0, "second": 0.25}
    assert torch.equal(logits(model), logits(alone(model, "default")))
    model.set_adapter("second")
    assert torch.equal(logits(model), logits(alone(model, "second")))  # whose configuration says 0.25 too
    scalings = {m.scaling["second"] for m in model.modules() if isinstance(m, LoraLayer)}
    assert scalings == {0.25 * 2.0}


@pytest.mark.parametrize("merged", ["default", "second"])  # whichever turns first, one of the two would turn alone
def test_the_dial_turns_all_or_none(merged: str) -> None:
    """Where the LoRA half of one of two active adapters is merged, neither half of the other turns."""
    model = draw(with_two())
    model.base_model.set_adapter(["default", "second"])
    model.merge_lora([merged])
    with pytest.raises(ValueError, match=f"The LoRA half of '{merged}' is merged"):
        set_strength(model, 0.5)
    assert get_strengths(model) == {"default": 1.0, "second": 1.0}
    # Not by the logits: where one is merged, PEFT leaves the others out.
    halves = [module for module in model.modules() if isinstance(module, LoraLayer)]
    assert {half.scaling[name] for half in halves for name in half.scaling} == {2.0}


def test_the_dial_leaves_a_lora_that_is_no_half_of_it() -> None:
    """A plain LoRA beside a steering adapter is not scaled."""
    model = get_peft_model(get_peft_model(tiny_model("llama"), lora()), SteeringConfig(r=3))
    set_strength(model, 0.0)
    assert {m.scaling["default"] for m in model.modules() if isinstance(m, LoraLayer)} == {2.0}


@pytest.mark.parametrize("by", ["method", "function"])
def test_merging_the_lora_half(by: str) -> None:
    """The output stays what it was, the weights hold the update, and unmerging brings them back."""
    model = draw(joint_model())
    adapted = logits(model)
    weight = model.get_base_model().model.layers[1].mlp.down_proj.base_layer.weight
    before = weight.detach().clone()
    merge, unmerge = (
        (model.merge_lora, model.unmerge_lora)
        if by == "method"
        else (
            lambda: merge_lora(model),
            lambda: unmerge_lora(model),
        )
    )
    merge()
    assert (weight - before).abs().max() > 0.1
    assert_close(logits(model), adapted, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="merged into the base; unmerge it"):
        set_strength(model, 0.5)
    assert get_strengths(model) == {"default": 1.0}
    unmerge()
    assert_close(weight, before, rtol=1e-5, atol=1e-6)
    assert_close(logits(model), adapted, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="No LoRA half is merged"):
        unmerge()


def test_merging_what_is_not_there() -> None:
    """No LoRA at all, another name, or disabled adapters: a clear error."""
    with pytest.raises(ValueError, match="no LoRA half"):
        merge_lora(tiny_model("llama"))
    model = joint_model()
    with pytest.raises(ValueError, match="Did you mean 'default'"):
        model.merge_lora(["defaul"])
    with model.disable_adapter(), pytest.raises(ValueError, match="while they are disabled"):
        model.merge_lora()


@pytest.mark.parametrize("how", ["merge_adapter", "merge_and_unload"])
def test_a_full_merge_is_an_error(how: str) -> None:
    """It points to merge_lora and leaves every weight alone: TRL's vLLM would sample from half of the policy."""
    model = draw(joint_model())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    adapted = logits(model)
    with pytest.raises(ValueError, match=r"depends on the hidden state.*model\.merge_lora\(\)"):
        getattr(model, how)()
    assert_same(before, dict(model.state_dict()))
    assert torch.equal(logits(model), adapted)


def test_a_full_merge_where_it_is_possible() -> None:
    """A vector in front of a bias and LoRA: both go into the weights, the constraint included."""
    half = lora(target_modules=["c_attn", "c_proj"])
    model = draw(joint_model("gpt2", lora=half, intervention="vector", site="mlp"))
    adapted = logits(model)
    base = model.merge_and_unload()
    assert not steering_layers(base)
    assert_close(logits(base), adapted, rtol=1e-4, atol=1e-5)


def test_unloading_restores_the_base() -> None:
    """Its modules, keys, hooks and weights, bit for bit; it can be adapted again."""
    base = tiny_model("llama")
    before = fingerprint(base, trainable=False)
    restored = draw(with_two()).get_base_model()  # of another model, to be sure that nothing is shared
    model = draw(joint_model(base))
    assert_same(fingerprint(model.unload(), trainable=False), before)
    assert restored is not base
    assert torch.equal(logits(joint_model(base)), logits(tiny_model("llama")))


FAILING: dict[str, dict[str, Any]] = {
    "lora": {"lora": lora(target_modules=["no_such_module"])},
    "constraint": {"lora": lora(target_modules=["q_proj"])},
    "steering": {"layers": [7]},
    "rank": {"r": 25},
}


@pytest.mark.parametrize("case", FAILING)
@pytest.mark.parametrize("first", [True, False])
def test_all_or_nothing(case: str, first: bool) -> None:
    """An adapter that cannot be attached leaves the model as it was, LoRA's wrappers included."""
    config = JointConfig(**{"r": 3, "lora": lora(), **FAILING[case]})
    if first:
        base = tiny_model("llama")
        before = fingerprint(base)
        with pytest.raises(ValueError):  # noqa: PT011  # by PEFT or by us; here it counts what is left
            get_peft_model(base, config)
        assert_same(fingerprint(base), before)
        return
    model = draw(joint_model())
    before = fingerprint(model)
    with pytest.raises(ValueError):  # noqa: PT011
        model.add_adapter("second", config)
    assert_same(fingerprint(model), before)
    assert list(model.peft_config) == ["default"]
    model.add_adapter("second", JointConfig(r=3, lora=lora()))


@pytest.mark.parametrize("config", [JointConfig(r=3, lora=lora()), SteeringConfig(layers=[7])])
def test_a_lora_of_the_same_name_survives(config: Any) -> None:
    """A LoRA adapter that is no half of ours is neither written over nor taken off by an adapter that fails."""
    base = get_peft_model(tiny_model("llama"), LoraConfig(r=2, target_modules=["q_proj"])).get_base_model()
    draw(base)
    before = fingerprint(base)
    with pytest.raises(ValueError, match=r"LoRA adapter 'default' at .*another adapter_name|Layer 7 is not there"):
        get_peft_model(base, config)
    of_lora = [{key: value for key, value in each.items() if "q_proj" in key} for each in (fingerprint(base), before)]
    assert len(of_lora[1]) > 10
    assert_same(*of_lora)
