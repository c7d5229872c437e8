"""Every family of models with every site: a no-op at the start, undone bit for bit, saved bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch.testing import assert_close

from steering_oracle import steered_logits
from tiny_models import FAMILIES, draw_adapters, steering_layers, tiny_model, token_ids
from trimtab import SteeringConfig, strength
from trimtab.sites import site_names

IDS = token_ids(2, 8)
MASK = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1], [1] * 8])

each_family = pytest.mark.parametrize("name", sorted(FAMILIES))
each_site = pytest.mark.parametrize("site", site_names())


def logits(model: Any) -> torch.Tensor:
    """What the model says of IDS, without gradients."""
    with torch.no_grad():
        return model(input_ids=IDS, attention_mask=MASK).logits


def adapted(name: str, drawn: bool = True, **options: Any) -> Any:
    """The tiny model of a family with an adapter, drawn at random or fresh."""
    options = {"r": 3, "task_type": "CAUSAL_LM"} | options
    model = get_peft_model(tiny_model(name), SteeringConfig(**options)).eval()
    if drawn:
        draw_adapters(model)
    return model


@each_family
@each_site
@pytest.mark.parametrize("intervention", ["low_rank", "vector"])
def test_a_fresh_adapter_changes_nothing(name: str, site: str, intervention: str) -> None:
    """Bit for bit; and there is one steering layer in each decoder layer."""
    model = adapted(name, drawn=False, site=site, intervention=intervention)
    assert torch.equal(logits(model), logits(tiny_model(name)))
    assert len(steering_layers(model)) == 3


@each_family
@each_site
def test_a_trained_adapter_steers_and_can_be_switched_off(name: str, site: str) -> None:
    """It changes the logits; disabled, or at strength 0, they are the base's bit for bit, and then its own again."""
    base = logits(tiny_model(name))
    model = adapted(name, site=site)
    steered = logits(model)
    assert (steered - base).abs().max() > 1e-3
    with model.disable_adapter():
        assert torch.equal(logits(model), base)
    with strength(model, 0.0):
        assert torch.equal(logits(model), base)
    assert torch.equal(logits(model), steered)


@each_family
@each_site
def test_the_shift_is_the_formula_at_the_site(name: str, site: str) -> None:
    """The logits are those of a base model that plain hooks steer, with the family's multiplier written out."""
    model, base = adapted(name, site=site), tiny_model(name)
    every_token = torch.ones(IDS.shape, dtype=torch.bool)
    if name == "granite" and site in ("mlp", "attention"):
        # The stream receives m h; the shift reads m h and is added to it: h + W_up W_down (m h) / m is the same map.
        assert {layer.multipliers["default"] for layer in steering_layers(model)} == {0.22}
    got = logits(model)
    assert_close(got, steered_logits(base, model, every_token, site=site, input_ids=IDS, attention_mask=MASK))


@each_family
@each_site
def test_saved_and_loaded(name: str, site: str, tmp_path: Path) -> None:
    """The same logits, bit for bit."""
    model = adapted(name, site=site, activation="silu", use_bias=True, positions="first_last(1,2)")
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny_model(name), tmp_path)
    assert torch.equal(logits(loaded), logits(model))


@each_family
@each_site
@pytest.mark.parametrize("positions", ["all", "last_prompt"])
def test_cached_and_un_cached_agree(name: str, site: str, positions: str) -> None:
    """Generation gives the same tokens and logits with a cache and without."""
    model = adapted(name, site=site, positions=positions, activation="tanh", normalize=True)
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    options |= {"return_dict_in_generate": True, "output_logits": True}
    cached, un_cached = (
        model.generate(input_ids=IDS, attention_mask=MASK, use_cache=use_cache, **options)
        for use_cache in (True, False)
    )
    assert torch.equal(cached.sequences, un_cached.sequences)
    assert_close(torch.stack(cached.logits), torch.stack(un_cached.logits), rtol=1e-5, atol=1e-5)


def test_a_multiplier_is_seen_by_a_nonlinear_shift() -> None:
    """Granite's stream receives m h, so the shift is f(m h): another one than f(h) if f is not linear."""
    model = adapted("granite", site="mlp", layers=[2], activation="silu")
    (layer,) = steering_layers(model)
    kept: dict[str, torch.Tensor] = {}
    host = model.get_base_model().model.layers[2].mlp
    host.register_forward_hook(lambda _, __, out: kept.update(before=out.clone()), prepend=True)
    host.register_forward_hook(lambda _, __, out: kept.update(after=out.clone()))
    logits(model)
    factor = layer.steering_interventions["default"]
    y = torch.einsum("rd,...d->...r", factor.down, 0.22 * kept["before"])
    shift = torch.einsum("dr,...r->...d", factor.up, y / (1 + torch.exp(-y)))
    assert_close(0.22 * kept["after"], 0.22 * kept["before"] + shift, rtol=1e-5, atol=1e-5)


@each_site
def test_some_layers(site: str) -> None:
    """layers=[0, 2] steers these two and no other."""
    model = adapted("llama", site=site, layers=[2, 0])
    names = [name for name, _ in model.named_parameters() if "steering_interventions" in name]
    assert {name.split("layers.")[1][0] for name in names} == {"0", "2"}
