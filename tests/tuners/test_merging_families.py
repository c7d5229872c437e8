"""Merging a vector in every family and site that has a bias for it; test_merging.py has the corner cases."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch import Tensor, nn
from torch.testing import assert_close

from tiny_models import assert_same, draw_adapters, fingerprint, steering_layers, tiny_model, token_ids
from trimtab import SteeringConfig, set_strength

IDS = token_ids(2, 8)
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
BIASED = ["gpt2", "gpt_neox", "gpt_neox-sequential", "gptj", "bloom", "opt"]
# GPT-J's attention has no bias.
MERGEABLE = [(n, s) for n in BIASED for s in ("block", "mlp", "attention") if (n, s) != ("gptj", "attention")]
WITH_FLAGS: dict[str, dict[str, Any]] = {
    "mlp": {"mlp_bias": True},
    "block": {"mlp_bias": True},
    "attention": {"attention_bias": True},
}

each_mergeable = pytest.mark.parametrize(("name", "site"), MERGEABLE)


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def vector(base: nn.Module, **options: Any) -> Any:
    """A model with a random vector, at a strength that is not 1."""
    options = {"intervention": "vector", "strength": -1.5} | options
    model = get_peft_model(base, SteeringConfig(**options)).eval()
    draw_adapters(model)
    return model


@each_mergeable
def test_merged_logits_are_steered_logits(name: str, site: str) -> None:
    """The merged model without any hook says what the steered one said."""
    model = vector(tiny_model(name), site=site)
    steered = logits(model)
    assert (steered - logits(tiny_model(name))).abs().max() > 1e-2
    merged = model.merge_and_unload(safe_merge=True)
    assert not steering_layers(merged)
    assert merged.state_dict().keys() == tiny_model(name).state_dict().keys()
    assert_close(logits(merged), steered, **TOLERANCE)


@each_mergeable
def test_merged_in_place_and_taken_out(name: str, site: str) -> None:
    """merge_adapter changes the biases, does not steer twice, and unmerge_adapter gives them back bit for bit."""
    base = tiny_model(name)
    model = vector(base, site=site)
    steered, values = logits(model), {key: value.clone() for key, value in base.state_dict().items()}
    model.merge_adapter()
    assert_close(logits(model), steered, **TOLERANCE)
    assert any(not torch.equal(value, values[key]) for key, value in base.state_dict().items())
    model.unmerge_adapter()
    assert all(torch.equal(value, values[key]) for key, value in base.state_dict().items())
    assert torch.equal(logits(model), steered)


@pytest.mark.parametrize("site", WITH_FLAGS)
def test_a_llama_with_biases(site: str) -> None:
    """A family without biases can merge where its configuration gives it some."""
    model = vector(tiny_model("llama", **WITH_FLAGS[site]), site=site)
    steered = logits(model)
    assert_close(logits(model.merge_and_unload()), steered, **TOLERANCE)


def test_linear_layers_by_name() -> None:
    """target_modules on linear layers with a bias, in any network."""
    network = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)).eval()
    model = vector(network, target_modules=["0", "2"])
    x = torch.randn(3, 6)
    steered = model(x)
    assert_close(model.merge_and_unload()(x), steered, **TOLERANCE)


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "low_rank": ("gpt2", {"intervention": "low_rank", "r": 3}, "'low_rank' depends on the hidden state"),
    "positions": ("gpt2", {"positions": "last_prompt"}, "some positions only"),
    "no_bias": ("llama", {}, "no bias of its own"),
    "post_norm": ("gemma3_text", {"site": "mlp"}, "no bias of its own"),
    "multiplier": ("granite", {"site": "mlp"}, "no bias of its own"),
}


@pytest.mark.parametrize("why", REFUSED)
@pytest.mark.parametrize("how", ["merge_adapter", "merge_and_unload"])
def test_what_cannot_be_merged(why: str, how: str) -> None:
    """The error names the adapter, the module, the reason and the way out, and no weight has changed."""
    name, options, message = REFUSED[why]
    base = tiny_model(name)
    model = vector(base, **options)
    before, steered = fingerprint(base), logits(model)
    with pytest.raises(ValueError, match=rf"Cannot merge the adapter 'default' at .*{message}.*save_pretrained"):
        getattr(model, how)()
    assert_same(before, fingerprint(base))
    assert torch.equal(logits(model), steered)


def test_one_of_several_layers_cannot() -> None:
    """If one layer cannot take the vector, none has taken it."""
    base = tiny_model("gpt2")
    base.transformer.h[2].mlp.c_proj.bias = None
    model = vector(base)
    before = fingerprint(base)
    with pytest.raises(ValueError, match=r"transformer\.h\.2.*no bias"):
        model.merge_adapter()
    assert_same(before, fingerprint(base))


def test_rows_of_a_merged_model() -> None:
    """A different adapter per row is an error while one is merged into all rows."""
    model = vector(tiny_model("gpt2"))
    model.merge_adapter()
    with pytest.raises(ValueError, match="merged adapters"):
        model(input_ids=IDS, adapter_names=["default", "__base__"])


def test_a_safe_merge_refuses_nan() -> None:
    """safe_merge looks at the numbers; what it had merged by then can be taken out."""
    base = tiny_model("gpt2")
    model = vector(base)
    with torch.no_grad():
        steering_layers(model)[1].steering_interventions["default"].vector[0] = float("nan")
    biases = [block.mlp.c_proj.bias.clone() for block in base.transformer.h]
    with pytest.raises(ValueError, match="NaN"):
        model.merge_adapter(safe_merge=True)
    model.unmerge_adapter()
    for block, old in zip(base.transformer.h, biases, strict=True):
        assert torch.equal(block.mlp.c_proj.bias, old)


def test_half_precision_is_given_back_too() -> None:
    """In bfloat16, where adding and subtracting would not cancel, unmerging is exact."""
    base = tiny_model("gpt2").to(torch.bfloat16)
    biases = [block.mlp.c_proj.bias.clone() for block in base.transformer.h]
    model = vector(base)
    set_strength(model, 300.0)
    model.merge_adapter()
    model.unmerge_adapter()
    for block, old in zip(base.transformer.h, biases, strict=True):
        assert torch.equal(block.mlp.c_proj.bias, old)
