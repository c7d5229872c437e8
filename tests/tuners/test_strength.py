"""The strength dial."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch import Tensor
from torch.testing import assert_close

from tiny_models import draw_adapters, steering_layers, tiny_model, token_ids
from trimtab import SteeringConfig, get_strengths, set_strength, strength

IDS = token_ids(2, 8)


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.fixture
def model() -> Any:
    """Two adapters at one site, `default` active."""
    model = get_peft_model(tiny_model("llama"), SteeringConfig(r=3, layers=[2], normalize=True)).eval()
    model.add_adapter("other", SteeringConfig(intervention="vector", layers=[2], strength=0.5))
    draw_adapters(model)
    return model


def stream(model: Any) -> Tensor:
    """What leaves the last decoder layer."""
    with torch.no_grad():
        return model(input_ids=IDS, output_hidden_states=True).hidden_states[-2:]


def shift(model: Any, value: float, adapter: str = "default") -> Tensor:
    """What the adapter adds to the last layer's output, as a hook behind it sees it."""
    kept = {}
    handle = model.get_base_model().model.layers[2].register_forward_hook(lambda _, __, out: kept.update(z=out))
    with strength(model, value, adapter):
        logits(model)
    steered = kept["z"]
    with model.disable_adapter():
        logits(model)
    handle.remove()
    return steered - kept["z"]


def test_zero_is_the_base_bit_for_bit(model: Any) -> None:
    """At 0 the logits are the base's own; also of an adapter whose weights are not finite."""
    base = logits(tiny_model("llama"))
    set_strength(model, 0.0)
    assert torch.equal(logits(model), base)
    with torch.no_grad():
        steering_layers(model)[0].steering_interventions["default"].up.fill_(float("inf"))
    assert torch.equal(logits(model), base)


def test_the_shift_is_proportional(model: Any) -> None:
    """s times the shift, for negative and large s too."""
    unit = shift(model, 1.0)
    for value in (-1.0, 0.25, 3.0):
        assert_close(shift(model, value), value * unit, rtol=1e-4, atol=1e-4)


def test_per_adapter(model: Any) -> None:
    """Each adapter has its dial; without a name the active ones are turned."""
    assert get_strengths(model) == {"default": 1.0, "other": 0.5}
    set_strength(model, 2.0, "other")
    assert get_strengths(model) == {"default": 1.0, "other": 2.0}
    set_strength(model, -1.0)
    assert get_strengths(model) == {"default": -1.0, "other": 2.0}
    model.base_model.set_adapter(["default", "other"])
    set_strength(model, 0.125)
    assert get_strengths(model) == {"default": 0.125, "other": 0.125}


def test_adapters_add_up_with_their_strengths(model: Any) -> None:
    """Two active adapters at strengths s and t shift by s A + t B."""
    a, b = shift(model, 1.0), None
    model.set_adapter("other")
    b = shift(model, 1.0, "other")
    model.base_model.set_adapter(["default", "other"])
    set_strength(model, -2.0, "other")
    assert_close(shift(model, 0.5), 0.5 * a - 2.0 * b, rtol=1e-4, atol=1e-4)


def test_the_block_restores(model: Any) -> None:
    """After the block, and after an error in it, every adapter has the strength that it had."""
    before = logits(model)
    with strength(model, 0.0), strength(model, 5.0, "other"):
        assert get_strengths(model) == {"default": 0.0, "other": 5.0}
    assert get_strengths(model) == {"default": 1.0, "other": 0.5}
    with pytest.raises(KeyError), strength(model, 7.0):
        raise KeyError
    assert get_strengths(model) == {"default": 1.0, "other": 0.5}
    assert torch.equal(logits(model), before)


def test_the_block_touches_one_adapter(model: Any) -> None:
    """What is done to another adapter inside the block stays: its dial, its deletion."""
    with strength(model, 0.0, "default"):
        set_strength(model, 0.75, "other")
    assert get_strengths(model) == {"default": 1.0, "other": 0.75}
    with strength(model, 0.0, "default"):
        model.delete_adapter("other")
    assert get_strengths(model) == {"default": 1.0}


def test_the_configuration_follows(model: Any) -> None:
    """The dial is what is saved, and configurations that two adapters share are not mixed up."""
    shared = SteeringConfig(r=2)
    model.add_adapter("e", shared)
    model.add_adapter("f", shared)
    set_strength(model, 0.25, "e")
    assert {name: config.strength for name, config in model.peft_config.items()} == {
        "default": 1.0,
        "other": 0.5,
        "e": 0.25,
        "f": 1.0,
    }


def test_the_strength_of_the_configuration(model: Any) -> None:
    """An adapter starts at its configuration's strength."""
    model.set_adapter("other")
    vector = steering_layers(model)[0].steering_interventions["other"].vector
    assert_close(shift(model, 0.5, "other"), (0.5 * vector.detach()).expand(2, 8, 24), rtol=1e-4, atol=1e-4)
    start = logits(model)
    set_strength(model, 0.5, "other")
    assert torch.equal(logits(model), start)


def test_gradients_scale_too(model: Any) -> None:
    """At strength s the gradient of a vector is s times that at 1, as the chain rule says of a linear head."""
    model.set_adapter("other")
    vector = steering_layers(model)[0].steering_interventions["other"].vector
    found = []
    for value in (1.0, 1e-3):
        vector.grad = None
        # Around the same point: a strength of 1e-3 with a thousandfold vector.
        with torch.no_grad():
            vector.mul_(1 / value) if value != 1.0 else None
        set_strength(model, value, "other")
        model(input_ids=IDS, labels=IDS).loss.backward()
        found.append(vector.grad.clone())
    assert_close(found[1], 1e-3 * found[0], rtol=1e-3, atol=1e-7)


def test_on_transformers_models() -> None:
    """The dial turns adapters that transformers attached."""
    model = tiny_model("llama")
    model.add_adapter(SteeringConfig(r=3))
    draw_adapters(model)
    set_strength(model, 0.0)
    assert torch.equal(logits(model), logits(tiny_model("llama")))
    assert model.peft_config["default"].strength == 0.0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_strength_is_finite(model: Any, value: float) -> None:
    """NaN and infinity are refused, and nothing has turned."""
    with pytest.raises(ValueError, match="must be a finite number"):
        set_strength(model, value)
    assert get_strengths(model) == {"default": 1.0, "other": 0.5}


def test_an_unknown_adapter_names_the_nearest(model: Any) -> None:
    """A misspelt adapter is an error that suggests the right one, in the block too."""
    with pytest.raises(ValueError, match=r"Unknown adapter 'othr'\. Did you mean 'other'\?"):
        set_strength(model, 1.0, "othr")
    with pytest.raises(ValueError, match="Unknown adapter"), strength(model, 1.0, "othr"):
        pass


def test_a_model_without_adapters() -> None:
    """Turning the dial of a model that has none is an error."""
    assert get_strengths(tiny_model("llama")) == {}
    with pytest.raises(ValueError, match="has no steering adapter"):
        set_strength(tiny_model("llama"), 1.0)


def test_a_merged_adapter_has_no_dial() -> None:
    """A merged adapter must be unmerged first; another one can still be turned, for a block too."""
    model = get_peft_model(tiny_model("gpt2"), SteeringConfig(intervention="vector"))
    model.add_adapter("other", SteeringConfig(r=2))
    model.base_model.set_adapter(["other", "default"])
    model.merge_adapter(["default"])
    with pytest.raises(ValueError, match="'default' is merged"):
        set_strength(model, 0.5, "default")
    with strength(model, 0.5, "other"):
        assert get_strengths(model) == {"default": 1.0, "other": 0.5}
    assert get_strengths(model) == {"default": 1.0, "other": 1.0}
    with pytest.raises(ValueError, match="'default' is merged"):
        set_strength(model, 0.5)  # both
    assert get_strengths(model) == {"default": 1.0, "other": 1.0}
