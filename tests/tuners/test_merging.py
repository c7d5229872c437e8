"""Merging a constant shift into a bias: exact where it can be, undone bit for bit, refused elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
from peft import PeftModel, get_peft_model
from torch import Tensor, allclose, equal, nn, no_grad
from torch.testing import assert_close

from tiny_models import assert_same, fingerprint, tiny_model, token_ids
from trimtab import SteeringConfig

IDS = token_ids(2, 8)


def steered(name: str, *sites: str, **changes: Any) -> PeftModel:
    """A tiny model with an active random vector at each site, called "0", "1", ..."""
    configs = [SteeringConfig(site=site, intervention="vector", init_weights=False) for site in sites]
    model = get_peft_model(tiny_model(name, **changes), configs[0], adapter_name="0")
    for number, config in enumerate(configs[1:], start=1):
        model.add_adapter(str(number), config)
    model.base_model.set_adapter([str(number) for number in range(len(sites))])
    return model.eval()


def logits(model: nn.Module) -> Tensor:
    """The logits of a fixed batch."""
    with no_grad():
        return model(IDS).logits


def structure(model: nn.Module) -> dict[str, Any]:
    """Modules, hooks and attributes of a model, without the values of its weights."""
    return {key: value for key, value in fingerprint(model).items() if key.endswith((" is", " has"))}


@pytest.mark.parametrize(
    ("name", "site", "changes"),
    [
        ("gpt2", "block", {}),
        ("gpt2", "mlp", {}),
        ("gpt2", "attention", {}),
        ("opt", "block", {}),
        ("opt", "mlp", {}),
        ("opt", "attention", {}),
        ("gptj", "block", {}),
        ("llama", "block", {"mlp_bias": True}),
        ("llama", "attention", {"attention_bias": True}),
    ],
)
def test_merged_model_computes_what_the_steered_one_does(name: str, site: str, changes: dict[str, Any]) -> None:
    """The vector in the bias does to the logits what the hook did; afterwards there is no adapter left."""
    model = steered(name, site, **changes)
    expected = logits(model)
    merged = model.merge_and_unload()
    assert_close(logits(merged), expected)
    base = tiny_model(name, **changes)
    assert not allclose(logits(base), expected, atol=1e-2)
    assert structure(merged) == structure(base)


@pytest.mark.parametrize("order", [["0", "1"], ["1", "0"]])
def test_two_sites_that_share_a_bias_come_out_of_it(order: list[str]) -> None:
    """The block's and the MLP's vector go into one bias in any order; unmerged, it has its old bits."""
    model = steered("gpt2", "block", "mlp")
    expected, before = logits(model), fingerprint(model)
    for name in order:
        model.merge_adapter([name])
    assert_close(logits(model), expected)
    model.unmerge_adapter()
    assert_same(before, fingerprint(model))


def test_disabled_after_merging_is_the_base_at_once() -> None:
    """The first forward pass without adapters has no trace of the merged vector in it."""
    model = steered("gpt2", "block")
    with model.disable_adapter():
        base = logits(model)
    model.merge_adapter()
    with model.disable_adapter():
        assert equal(logits(model), base)


def test_merging_while_disabled_is_refused() -> None:
    """A disabled adapter must not come back through the bias."""
    model = steered("gpt2", "block")
    before = fingerprint(model)
    with model.disable_adapter(), pytest.raises(ValueError, match="disabled"):
        model.merge_adapter()
    assert_same(before, fingerprint(model))


@pytest.mark.parametrize(
    ("name", "site", "changes"),
    [
        ("llama", "block", {}),
        ("gpt2", "mlp_input", {}),
        ("gpt2", "heads", {}),
        ("gptj", "attention", {}),
        # normalises the sum: what is added before the norm is not added after it
        ("opt", "block", {"do_layer_norm_before": False}),
    ],
)
def test_tensor_without_a_bias_of_its_own_is_refused(name: str, site: str, changes: dict[str, Any]) -> None:
    """Where no bias is a summand of the steered tensor, merging says so and changes nothing."""
    model = steered(name, site, **changes)
    before = fingerprint(model)
    with pytest.raises(ValueError, match="no bias of its own"):
        model.merge_adapter()
    assert_same(before, fingerprint(model))


def test_module_that_goes_on_after_its_linear_layer_is_refused() -> None:
    """A vector after a ReLU is none before it: merging must not take the last linear layer for the end."""
    network = nn.Sequential(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 5), nn.ReLU()), nn.Linear(5, 2))
    network[0].out_features = 5
    config = SteeringConfig(target_modules=["0"], intervention="vector", init_weights=False)
    model = get_peft_model(network, config)
    with pytest.raises(ValueError, match="no bias of its own"):
        model.merge_adapter()
