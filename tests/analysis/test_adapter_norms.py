"""Norms of adapters against dense matrices in float64, and relative sizes against shifts written out."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from analysis.subjects import steered
from joint_models import draw, joint_model
from tiny_language import byte_tokenizer
from tiny_models import draw_adapters, steering_layers, tiny_model, token_ids
from trimtab.analysis import AnalysisOptions, Subject, analyze
from trimtab.analysis.adapter_norms import PRODUCT, AdapterNorms, adapter_norms, norms
from trimtab.figures import svg_text

PROMPTS = tuple(tuple(token_ids(1, length, seed=length)[0].tolist()) for length in (7, 4, 1, 6))


def measured(model: Any, **options: Any) -> AdapterNorms:
    """The norms of an adapter, on the prompts."""
    return adapter_norms(subject_of(model), AnalysisOptions(**options))


def subject_of(model: Any) -> Subject:
    """The subject on the prompts."""
    return Subject(model, byte_tokenizer(), PROMPTS)


def array(parameter: Tensor) -> np.ndarray:
    """A parameter in float64."""
    return parameter.detach().double().numpy()


def test_norms_are_those_of_dense_matrices() -> None:
    """||W_up||, ||W_down||, ||W_up W_down|| by numpy, spectral and Frobenius, and the length of the bias."""
    model = steered(use_bias=True)
    found = measured(model)
    assert found.layers == (0, 1, 2)
    assert found.modules == ("model.layers.0", "model.layers.1", "model.layers.2")
    for index, layer in enumerate(steering_layers(model)):
        up, down, bias = (array(getattr(layer.intervention("default"), name)) for name in ("up", "down", "bias"))
        for name, matrix in {"W_up": up, "W_down": down, PRODUCT: up @ down, "bias": bias[None]}.items():
            assert found.spectral[name][index].item() == pytest.approx(np.linalg.norm(matrix, 2), rel=1e-5)
            assert found.frobenius[name][index].item() == pytest.approx(np.linalg.norm(matrix), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"intervention": "vector"}, {"vector"}),
        ({"intervention": "loreft"}, {"W_down", "source_bias"}),
        ({"intervention": "direft"}, {"W_down", "source_bias"}),
        ({"intervention": "nodireft"}, {"W_down", "W_up", "source_bias", PRODUCT}),
        ({"intervention": "head_bias", "site": "heads"}, {"bias"}),
    ],
)
def test_every_intervention_has_norms(options: dict[str, Any], names: set[str]) -> None:
    """Each trained factor has its norm; a product only what is one linear map."""
    found = measured(steered(**options))
    assert set(found.spectral) == set(found.frobenius) == names
    assert all(bool((values > 0).all()) for values in found.spectral.values())


def test_a_constrained_factor_before_and_after_its_projection() -> None:
    """The free W_up is longer than what acts: (I - Q Q^T) W_up, by numpy (figure 6)."""
    model = draw(joint_model(constraint="orthogonal"))
    found = measured(model)
    for index, (block, layer) in enumerate(
        zip(model.get_base_model().model.layers, steering_layers(model), strict=True)
    ):
        free = array(layer.intervention("default").parametrizations.up.original)
        basis = np.linalg.qr(array(block.mlp.down_proj.lora_B["default"].weight))[0]
        acting = free - basis @ (basis.T @ free)
        assert found.spectral["W_up before projection"][index].item() == pytest.approx(
            np.linalg.norm(free, 2), rel=1e-4
        )
        assert found.spectral["W_up"][index].item() == pytest.approx(np.linalg.norm(acting, 2), rel=1e-4)


def relative_by_hand(model: Any, prompt: tuple[int, ...], skip_first: int, strength: float) -> list[float]:
    """Mean over tokens of ||s (W_up W_down h)|| / ||h||, h from one prompt without padding, in float64."""
    seen: dict[int, np.ndarray] = {}

    def remember(module: Any, args: Any, index: int) -> None:
        seen[index] = array(args[0]).reshape(-1, args[0].shape[-1])  # OPT has no rows

    layers = steering_layers(model)
    handles = [layer.register_forward_pre_hook(partial(remember, index=i)) for i, layer in enumerate(layers)]
    with torch.no_grad():
        model(input_ids=torch.tensor([prompt]))
    for handle in handles:
        handle.remove()
    found = []
    for index, layer in enumerate(layers):
        h, factors = seen[index][skip_first:], layer.intervention("default")
        shift = strength * h @ array(factors.down).T @ array(factors.up).T
        found.append(float((np.linalg.norm(shift, axis=1) / np.linalg.norm(h, axis=1)).mean()))
    return found


@pytest.mark.parametrize(("family", "site"), [("llama", "block"), ("opt", "mlp"), ("gemma2", "mlp_input")])
def test_relative_size_of_the_shift(family: str, site: str) -> None:
    """The shift beside the steered tensor, for each prompt, padded batches or not; short prompts have none."""
    model = steered(family, site=site, strength=0.5)
    found = measured(model, batch_tokens=16)
    assert found.strength == 0.5
    assert bool(found.relative[:, 2].isnan().all())  # one token, which is skipped
    for column in (0, 1, 3):
        expected = relative_by_hand(model, PROMPTS[column], 1, 0.5)
        assert found.relative[:, column].tolist() == pytest.approx(expected, rel=1e-4)


def test_a_granite_shift_is_relative_to_what_the_stream_receives() -> None:
    """The family's multiplier is in both, the shift and what it is added to: it cancels."""
    model = steered("granite", site="mlp")
    found = measured(model)
    assert found.relative[:, 0].tolist() == pytest.approx(relative_by_hand(model, PROMPTS[0], 1, 1.0), rel=1e-4)


def test_a_small_shift_of_a_bfloat16_model_is_not_its_rounding() -> None:
    """A shift of less than 1e-4 of the stream, which bfloat16 cannot add to it, has its size all the same."""
    model = steered()
    draw_adapters(model, scale=1e-3)
    model = model.to(torch.bfloat16)
    found = measured(model)
    expected = relative_by_hand(model, PROMPTS[0], 1, 1.0)
    assert max(expected) < 1e-4
    assert found.relative[:, 0].tolist() == pytest.approx(expected, rel=0.01)


def test_tokens_that_are_not_steered_count_with_zero() -> None:
    """Steering the last prompt token alone is a share of the mean over all tokens."""
    everywhere = measured(steered(), layers=(0,))
    last = measured(steered(positions="last_prompt"), layers=(0,))
    assert 0 < last.relative[0, 0] < 0.5 * everywhere.relative[0, 0]


def test_chosen_layers() -> None:
    """Only these are measured."""
    found = measured(steered(), layers=(2,))
    assert found.layers == (2,)
    assert found.relative.shape == (1, len(PROMPTS))


def test_norms_of_one_intervention() -> None:
    """A rank-one product of vectors a and b has the norm |a| |b|, in both norms."""
    intervention = steering_layers(steered(r=1))[0].intervention("default")
    a, b = array(intervention.up), array(intervention.down)
    expected = np.linalg.norm(a) * np.linalg.norm(b)
    assert norms(intervention)[PRODUCT] == pytest.approx((expected, expected), rel=1e-5)


def test_as_an_analysis() -> None:
    """The page's words, JSON and figure have the numbers; a fresh adapter, whose W_up is zero, can be drawn too."""
    for scale in (0.3, 0.0):
        model = steered()
        draw_adapters(model, scale=scale)
        found = analyze(subject_of(model), AnalysisOptions(), only=["adapter_norms"])
        norms_found = found.findings["adapter_norms"]
        assert "W_up W_down" in norms_found.summary
        assert "median and quartiles over 4 prompts" in norms_found.caption
        assert json.loads(json.dumps(norms_found.to_dict(), allow_nan=False))["relative"][0][2] is None
        assert "shift, % of the steered tensor" in svg_text(norms_found.figure())


def test_what_has_no_norms() -> None:
    """A base, LoRA alone, an adapter that leaves the chosen layers alone: said before anything is measured."""
    lora = get_peft_model(tiny_model("llama"), LoraConfig(r=2, target_modules=["q_proj"]))
    for model in (tiny_model("llama"), lora):
        with pytest.raises(ValueError, match="It measures a steering adapter: give one"):
            analyze(subject_of(model), AnalysisOptions(), only=["adapter_norms"])
    with pytest.raises(ValueError, match="steers none of the chosen layers"):
        measured(steered(layers=[1]), layers=(0, 2))
