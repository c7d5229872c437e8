"""Steering and LoRA in one model: neither breaks the other, and what cannot be is a clear error."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.testing import assert_close

from steering_oracle import steered_logits
from tiny_models import draw_adapters, steering_layers, tiny_model, token_ids
from trimtab import SteeringConfig, strength

IDS = token_ids(2, 8)
EVERY_TOKEN = torch.ones(IDS.shape, dtype=torch.bool)
SITES = ["block", "mlp", "mlp_input", "attention", "heads"]
PROJECTIONS = ["q_proj", "v_proj", "o_proj", "down_proj"]


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def draw_lora(model: nn.Module) -> None:
    """Random LoRA factors, so that it is no no-op."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


def lora_alone(targets: list[str]) -> Any:
    """A base with LoRA merged into it: the base that the steering sees."""
    model = get_peft_model(tiny_model("llama"), LoraConfig(r=2, target_modules=targets))
    draw_lora(model)
    return model.merge_and_unload().eval()


def both(order: str, site: str, how: str, targets: list[str]) -> Any:
    """A model with LoRA and steering, in either order, by PEFT's classes or by transformers' methods."""
    steering = SteeringConfig(r=3, site=site)
    lora = LoraConfig(r=2, target_modules=targets)
    configs = [("lora", lora), ("steering", steering)]
    model: Any = tiny_model("llama")
    for name, config in configs if order == "lora_first" else configs[::-1]:
        if how == "peft":
            model = get_peft_model(model, config, adapter_name=name)
        else:
            model.add_adapter(config, name)
    if how == "transformers":
        for module in model.modules():
            if isinstance(module, BaseTunerLayer):
                module.set_adapter(["lora", "steering"])
    draw_lora(model)
    draw_adapters(model)
    return model.eval()


@pytest.mark.parametrize("order", ["lora_first", "steering_first"])
@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("how", ["peft", "transformers"])
def test_both_at_once(order: str, site: str, how: str) -> None:
    """The logits are those of the base with LoRA merged into it, steered by hand."""
    targets = [name for name in PROJECTIONS if not (site == "heads" and order == "steering_first" and name == "o_proj")]
    model = both(order, site, how, targets)
    assert len(steering_layers(model)) == 3
    wanted = steered_logits(lora_alone(targets), model, EVERY_TOKEN, site=site, adapter="steering", input_ids=IDS)
    assert_close(logits(model), wanted, rtol=1e-4, atol=1e-4)
    with strength(model, 0.0):
        assert_close(logits(model), logits(lora_alone(targets)), rtol=1e-4, atol=1e-4)


def test_lora_around_a_steered_projection() -> None:
    """LoRA that comes later, on the very module that carries the site, reads past the steering: LoRA goes first."""
    model = both("steering_first", "heads", "peft", ["o_proj"])
    projection = model.get_base_model().model.model.layers[0].self_attn.o_proj
    seen: dict[str, Tensor] = {}
    projection.lora_A["lora"].register_forward_pre_hook(lambda _, args: seen.update(lora=args[0]))
    projection.register_forward_pre_hook(lambda _, args: seen.update(heads=args[0]))
    logits(model)
    assert torch.equal(seen["lora"], seen["heads"])
    first = both("lora_first", "heads", "peft", ["o_proj"])
    assert not torch.allclose(logits(first), logits(model), atol=1e-2)


@pytest.mark.parametrize("site", SITES)
def test_both_learn(site: str) -> None:
    """With both trainable, both get gradients."""
    model = both("lora_first", site, "transformers", PROJECTIONS)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name or "steering_interventions" in name)
    model.train()(input_ids=IDS, labels=IDS).loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_lora_comes_off_a_steered_model() -> None:
    """LoRA that is unloaded from a steered model leaves the steering as it was."""
    steered = get_peft_model(tiny_model("llama"), SteeringConfig(r=3, site="heads")).eval()
    draw_adapters(steered)
    wanted = logits(steered)
    model = get_peft_model(steered.get_base_model(), LoraConfig(r=2, target_modules=PROJECTIONS))
    draw_lora(model)
    assert not torch.equal(logits(model.eval()), wanted)
    model.unload()
    assert torch.equal(logits(steered), wanted)


@pytest.mark.parametrize("first", ["lora", "steering"])
def test_two_kinds_in_one_peft_model_are_refused(first: str) -> None:
    """PEFT holds adapters of one kind in a PeftModel, and says so."""
    configs = {"lora": LoraConfig(r=2, target_modules=PROJECTIONS), "steering": SteeringConfig(r=3)}
    second = ({"lora", "steering"} - {first}).pop()
    model: PeftModel = get_peft_model(tiny_model("llama"), configs[first])
    with pytest.raises(ValueError, match="Cannot combine adapters with different peft types"):
        model.add_adapter("other", configs[second])
