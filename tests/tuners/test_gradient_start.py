"""The start along the gradient, against the gradient of a full matrix at the same place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from tiny_models import steering_layers, tiny_model, token_ids
from trimtab import JointConfig, SteeringConfig, start_from_gradient
from trimtab.tuners.steering import copy_start

IDS = token_ids(3, 9)
LABELS = torch.where(torch.arange(9) > 5, IDS, -100)


def losses(model: Any) -> Any:
    """Two batches."""
    for rows in (slice(0, 2), slice(2, 3)):
        yield model(input_ids=IDS[rows], labels=LABELS[rows]).loss


def gradient_of_a_full_map(layer: int, normalized: bool, positions: str) -> np.ndarray:
    """dloss/dM at M = 0 of a full matrix M on what the adapter would read, by autograd."""
    model = tiny_model("llama")
    width = model.config.hidden_size
    full = torch.zeros(width, width, requires_grad=True)
    steered = torch.ones(9) if positions == "all" else (torch.arange(9) == 5).float()

    def add(module: Any, args: Any, h: Tensor) -> Tensor:
        x = h / (h.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() if normalized else h
        return h + (x @ full.T) * steered[:, None]

    model.model.layers[layer].register_forward_hook(add)
    for loss in losses(model):
        loss.backward()
    return full.grad.double().numpy()


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("positions", ["all", "last_prompt"])
def test_rows_span_the_first_singular_vectors_of_the_gradient(normalize: bool, positions: str) -> None:
    """The row space of W_down is that of the best rank-r approximation of dloss/dM; rows are 1/sqrt 3 long."""
    config = SteeringConfig(r=2, normalize=normalize, positions=positions, init_weights="gradient")
    model = get_peft_model(tiny_model("llama"), config)
    start_from_gradient(model, losses(model))
    for index, layer in enumerate(steering_layers(model)):
        down = layer.intervention("default").down.detach().double().numpy()
        np.testing.assert_allclose(down @ down.T, np.eye(2) / 3, atol=1e-5)
        *_, v = np.linalg.svd(gradient_of_a_full_map(index, normalize, positions))
        np.testing.assert_allclose(3 * down.T @ down, v[:2].T @ v[:2], atol=1e-3)


def test_the_first_step_lowers_the_loss_more_than_from_a_random_start() -> None:
    """After one equally long step of W_up down its gradient, the loss has fallen further."""

    def fall(config: SteeringConfig) -> float:
        torch.manual_seed(0)
        model = get_peft_model(tiny_model("llama"), config)
        if config.init_weights == "gradient":
            start_from_gradient(model, losses(model))
        before = model(input_ids=IDS, labels=LABELS).loss
        before.backward()
        ups = [layer.intervention("default").up for layer in steering_layers(model)]
        norm = torch.sqrt(sum(up.grad.square().sum() for up in ups))
        with torch.no_grad():
            for up in ups:
                up -= 0.1 * up.grad / norm
            return float(before - model(input_ids=IDS, labels=LABELS).loss)

    assert fall(SteeringConfig(r=2, init_weights="gradient")) > 1.2 * fall(SteeringConfig(r=2)) > 0


def test_a_start_is_copied_between_adapters_of_one_configuration() -> None:
    """Bit for bit; another rank, other layers and a name that is not there are refused."""
    config = SteeringConfig(r=2, init_weights="gradient")
    model = get_peft_model(tiny_model("llama"), config, adapter_name="first")
    start_from_gradient(model, losses(model), "first")
    model.add_adapter("second", config)
    model.add_adapter("wider", SteeringConfig(r=3, init_weights="gradient"))
    model.add_adapter("fewer", SteeringConfig(r=2, layers=[0], init_weights="gradient"))
    pairs = [[layer.intervention(name).down for name in ("first", "second")] for layer in steering_layers(model)]
    assert pairs
    assert not any(torch.equal(*pair) for pair in pairs)
    copy_start(model, "first", "second")
    assert all(torch.equal(*pair) for pair in pairs)
    for target, message in (
        ("wider", "different ranks"),
        ("fewer", "different modules"),
        ("third", "no steering adapter"),
    ):
        with pytest.raises(ValueError, match=message):
            copy_start(model, "first", target)


def test_it_is_a_no_op_still_and_leaves_no_gradients() -> None:
    """Logits are the base's bit for bit; nothing has a gradient or a hook."""
    model = get_peft_model(tiny_model("llama"), SteeringConfig(r=2, init_weights="gradient"))
    start_from_gradient(model, losses(model))
    assert torch.equal(model(input_ids=IDS).logits, tiny_model("llama")(input_ids=IDS).logits)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(layer._forward_hooks for layer in steering_layers(model))


def test_what_cannot_start_so_is_refused() -> None:
    """A vector reads nothing; an unknown start, no losses, no such adapter, a reading side under a constraint."""
    with pytest.raises(ValueError, match=r"'vector' cannot start from the gradient"):
        SteeringConfig(intervention="vector", init_weights="gradient")
    with pytest.raises(ValueError, match=r"init_weights='gradiant' must be True, False, 'gradient' or 'random_up'"):
        SteeringConfig(init_weights="gradiant")
    with pytest.raises(ValueError, match=r"'vector' has no W_up"):
        SteeringConfig(intervention="vector", init_weights="random_up")
    model = get_peft_model(tiny_model("llama"), SteeringConfig(r=2))
    with pytest.raises(ValueError, match="Of 3 steered modules 3 saw no gradient"):
        start_from_gradient(model, [])
    with pytest.raises(ValueError, match="no steering adapter 'other'"):
        start_from_gradient(model, losses(model), "other")
    vector = get_peft_model(tiny_model("llama"), SteeringConfig(intervention="vector"))
    with pytest.raises(ValueError, match="'vector' cannot start from the gradient"):
        start_from_gradient(vector, losses(vector))
    lora = LoraConfig(r=2, target_modules="all-linear")
    joint = get_peft_model(tiny_model("llama"), JointConfig(r=2, lora=lora, constraint="input"))
    with pytest.raises(ValueError, match="under a constraint"):
        start_from_gradient(joint, losses(joint))
