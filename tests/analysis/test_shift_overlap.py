"""Cosines of the two halves of a joint adapter, against weights written out in float64."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from peft import get_peft_model
from torch import Tensor

from joint_models import draw, joint_model, lora
from tiny_language import byte_tokenizer
from tiny_models import steering_layers, tiny_model, token_ids
from trimtab import SteeringConfig
from trimtab.analysis import AnalysisOptions, Subject, analyze, get_analysis
from trimtab.analysis.shift_overlap import shift_overlap
from trimtab.figures import svg_text

PROMPTS = [token_ids(1, 7)[0].tolist(), token_ids(1, 4)[0].tolist()]


def effective(projection: Any, with_lora: bool) -> np.ndarray:
    """W, or W + (alpha / r) B A."""
    weight = projection.base_layer.weight.double()
    if with_lora:
        update = projection.lora_B["default"].weight.double() @ projection.lora_A["default"].weight.double()
        weight = weight + projection.scaling["default"] * update
    return weight.detach().numpy()


def mlp_of(layer: Any, h: np.ndarray, with_lora: bool) -> np.ndarray:
    """W_d (silu(W_g h) * W_u h), rows of h are tokens."""
    gate, up, down = (effective(getattr(layer.mlp, f"{name}_proj"), with_lora) for name in ("gate", "up", "down"))
    a = h @ gate.T
    return (a / (1 + np.exp(-a)) * (h @ up.T)) @ down.T


def inputs_of(model: Any, layers: Any, prompt: list[int]) -> dict[tuple[str, int], Tensor]:
    """What each layer's MLP reads ("h") and what its adapter reads ("z")."""
    seen: dict[tuple[str, int], Tensor] = {}

    def remember(module: Any, args: Any, key: tuple[str, int]) -> None:
        seen[key] = args[0]

    handles = []
    for index, layer in enumerate(layers):
        handles.append(layer.mlp.register_forward_pre_hook(partial(remember, key=("h", index))))
        handles.append(layer.steering.register_forward_pre_hook(partial(remember, key=("z", index))))
    with torch.no_grad():
        model(input_ids=torch.tensor([prompt]), use_cache=False)
    for handle in handles:
        handle.remove()
    return seen


def test_cosines_equal_those_of_explicit_weights() -> None:
    """Per layer and prompt: the mean over tokens of cos(W_up W_down z, MLP'(h) - MLP(h))."""
    model = draw(joint_model(constraint="none"))
    found = shift_overlap(model, PROMPTS)
    layers = model.get_base_model().model.layers
    assert found.cosine.shape == (len(layers), 2)
    for column, prompt in enumerate(PROMPTS):
        seen = inputs_of(model, layers, prompt)
        for index, (layer, steering) in enumerate(zip(layers, steering_layers(model), strict=True)):
            h, z = (seen[name, index][0].double().numpy() for name in ("h", "z"))
            factors = steering.intervention("default")
            adapter = z @ factors.down.detach().double().numpy().T @ factors.up.detach().double().numpy().T
            weights = mlp_of(layer, h, True) - mlp_of(layer, h, False)
            cosine = (adapter * weights).sum(1) / (np.linalg.norm(adapter, axis=1) * np.linalg.norm(weights, axis=1))
            assert found.cosine[index, column].item() == pytest.approx(cosine.mean(), abs=1e-3)


def test_the_constraint_makes_them_orthogonal_where_only_the_writing_weight_is_tuned() -> None:
    """With LoRA on down_proj alone its shift is in col(B), and the constrained adapter's is not."""
    only_down = lora(target_modules=["down_proj"])
    free = shift_overlap(draw(joint_model(constraint="none", lora=only_down)), PROMPTS)
    kept_apart = shift_overlap(draw(joint_model(constraint="orthogonal", lora=only_down)), PROMPTS)
    assert free.cosine.abs().max() > 0.05
    assert kept_apart.cosine.abs().max() < 1e-4


def test_norms_before_and_after_the_projection() -> None:
    """||W_up||_2 of the free and of the projected factor, by numpy's singular values."""
    model = draw(joint_model(constraint="orthogonal"))
    found = shift_overlap(model, PROMPTS[:1])
    for index, (layer, steering) in enumerate(
        zip(model.get_base_model().model.layers, steering_layers(model), strict=True)
    ):
        free = steering.intervention("default").parametrizations.up.original.detach().double().numpy()
        basis = np.linalg.qr(layer.mlp.down_proj.lora_B["default"].weight.detach().double().numpy())[0]
        projected = free - basis @ (basis.T @ free)
        assert found.free_norm[index].item() == pytest.approx(np.linalg.norm(free, 2), rel=1e-4)
        assert found.written_norm[index].item() == pytest.approx(np.linalg.norm(projected, 2), rel=1e-4)
        assert found.written_norm[index] < found.free_norm[index]


def test_measuring_leaves_the_model_as_it_was() -> None:
    """Logits, mode and what is trained are those from before."""
    model = draw(joint_model()).train()
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    before = model(input_ids=token_ids(1, 5)).logits
    shift_overlap(model, PROMPTS)
    assert torch.equal(model(input_ids=token_ids(1, 5)).logits, before)
    assert model.training
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == trained


def test_a_steering_adapter_alone_is_refused() -> None:
    """It has no other half."""
    with pytest.raises(ValueError, match="The MLP of layer 0 has no LoRA"):
        shift_overlap(get_peft_model(tiny_model("llama"), SteeringConfig(r=2)), PROMPTS)


def test_what_cannot_be_measured_is_refused() -> None:
    """A stream in bfloat16, merged LoRA, another active adapter."""
    with pytest.raises(ValueError, match="load the model in float32"):
        shift_overlap(joint_model().to(torch.bfloat16), PROMPTS)
    with pytest.raises(ValueError, match="not 'other' alone"):
        shift_overlap(joint_model(), PROMPTS, "other")
    merged = draw(joint_model())
    merged.merge_lora()
    with pytest.raises(ValueError, match="unmerge_lora"):
        shift_overlap(merged, PROMPTS)


def test_skipped_tokens_and_chosen_layers() -> None:
    """The first tokens do not count, and the other layers are left out."""
    model = draw(joint_model(constraint="none"))
    whole = shift_overlap(model, PROMPTS)
    some = shift_overlap(model, PROMPTS, layers=(1,), skip_first=1)
    assert some.layers == (1,)
    assert some.cosine.shape == (1, 2)
    first = shift_overlap(model, [prompt[:1] for prompt in PROMPTS], layers=(1,))
    for column, prompt in enumerate(PROMPTS):
        rest = (len(prompt) * whole.cosine[1, column] - first.cosine[0, column]) / (len(prompt) - 1)
        assert some.cosine[0, column].item() == pytest.approx(rest.item(), abs=1e-5)


def test_as_an_analysis() -> None:
    """It applies to joint adapters, and its words and figure have the numbers; to others it does not, and says why."""
    subject = Subject(draw(joint_model()), byte_tokenizer(), tuple(map(tuple, PROMPTS)))
    found = analyze(subject, AnalysisOptions(), only=["shift_overlap"]).findings["shift_overlap"]
    assert found.layers == (0, 1, 2)
    assert "The median cosine is" in found.summary
    assert "largest singular value of W_up" in svg_text(found.figure())
    only_attention = joint_model(constraint="none", lora=lora(target_modules=["q_proj"]))
    subject = Subject(only_attention, byte_tokenizer(), ((3, 4),))
    assert "has no LoRA" in str(get_analysis("shift_overlap").missing(subject, AnalysisOptions()))
    vector = Subject(joint_model(intervention="vector"), byte_tokenizer(), ((3, 4),))
    assert "is not low-rank" in str(get_analysis("shift_overlap").missing(vector, AnalysisOptions()))
