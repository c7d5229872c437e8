"""What distillation refuses, and what it says: models, adapters and settings that do not fit, too few texts."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model

from distillation_teachers import lora_teacher, steered_teacher, texts
from tiny_models import tiny_model
from trimtab import SteeringConfig
from trimtab.distillation import DistillationResult, DistillationSettings, distill, twin
from trimtab.encoding import Encoded


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 70}, "its vocabulary is 70"),
        ({"n_embd": 28}, "its hidden_size is 28"),
        ({"n_layer": 2}, "its num_hidden_layers is 2"),
    ],
)
def test_another_base_is_named(change: dict[str, Any], message: str) -> None:
    """Before anything is run: what differs, and both values."""
    with pytest.raises(ValueError, match=message):
        distill(tiny_model("gpt2"), tiny_model("gpt2", **change), texts())


def test_models_that_do_not_belong_together() -> None:
    """Another type; other weights of the same shape; a LoRA that names another base; the same object; a base in use."""
    base = tiny_model("llama")
    with pytest.raises(ValueError, match="its model_type is 'mistral'"):
        distill(base, tiny_model("mistral"), texts())
    other = twin(base)
    other.set_input_embeddings(torch.nn.Embedding.from_pretrained(torch.randn(61, 24)))
    with pytest.raises(ValueError, match="its embeddings differ from the base's"):
        distill(base, other, texts())
    base.config.name_or_path = "somebody/base-1b"
    tuned = lora_teacher(base)
    tuned.peft_config["default"].base_model_name_or_path = "somebody/other-1b"
    with pytest.raises(ValueError, match="was trained on 'somebody/other-1b', not on 'somebody/base-1b'"):
        distill(base, tuned, texts())
    with pytest.raises(ValueError, match="one object"):
        distill(base, base, texts())
    with pytest.raises(ValueError, match=r"base\.unload"):
        distill(steered_teacher(base), tiny_model("llama"), texts())  # type: ignore[arg-type]
    prompts = get_peft_model(tiny_model("llama"), PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"))
    with pytest.raises(ValueError, match="prompts of its own"):
        distill(tiny_model("llama"), prompts, texts())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "silu"}, "no closed form: leave it linear"),
        ({"intervention": "loreft"}, "'loreft' has no closed form"),
        ({"site": "mlp"}, "must be 'block'"),
        ({"strength": 0.5}, "strength 1"),
        ({"layers": [7]}, "Layer 7 is not there"),
    ],
)
def test_adapters_without_a_closed_form(options: dict[str, Any], message: str) -> None:
    """Each with what to do instead."""
    base = tiny_model("llama")
    with pytest.raises(ValueError, match=message):
        distill(base, lora_teacher(base), texts(), SteeringConfig(**options))


def test_too_few_texts() -> None:
    """One has to be held out."""
    base = tiny_model("llama")
    with pytest.raises(ValueError, match="1 text"):
        distill(base, lora_teacher(base), texts(1))


def test_a_tuned_model_that_shifts_nothing(tmp_path: Path) -> None:
    """A copy of the base, a LoRA as it begins, one on a layer behind those that are steered: no shift, nothing left."""
    base = tiny_model("llama")
    untrained = get_peft_model(twin(base), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    later = lora_teacher(base, layers_to_transform=[2], target_modules=["q_proj"])
    for tuned, layers in ((twin(base), None), (untrained, None), (later, [0, 1])):
        with pytest.raises(ValueError, match="there is no shift to fit"):
            distill(base, tuned, texts(), SteeringConfig(r=2, layers=layers), scratch=tmp_path)
        assert not list(tmp_path.iterdir())
        assert not any("steering" in name for name, _ in base.named_modules())


def test_layers_that_the_tuning_leaves_alone(tmp_path: Path) -> None:
    """A LoRA on the later layers: the first one's share is that of nothing, null in the report and NaN in Python."""
    base = tiny_model("llama")
    given = [Encoded(text.prompt, []) for text in texts()]  # no answers: their divergence is not defined
    settings = DistillationSettings(fitting="tuned_stream")
    _, result = distill(
        base, lora_teacher(base, layers_to_transform=[1, 2], target_modules=["q_proj"]), given, settings=settings
    )
    assert [math.isnan(layer["explained"]) for layer in result.layers] == [True, False, False]
    result.save(tmp_path / "report.json")
    content = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert content["layers"][0]["explained"] is content["after"]["answers"] is None
    loaded = DistillationResult.load(tmp_path / "report.json")
    assert math.isnan(loaded.layers[0]["explained"])
    assert loaded.settings == result.settings
    assert str(loaded) == str(result)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"fitting": "sequentially"}, "Did you mean 'sequential'"),
        ({"weights": "relativ"}, "Did you mean 'relative'"),
        ({"metric": "logit"}, "Did you mean 'logits'"),
        ({"validation": 1.0}, "validation=1.0"),
        ({"answer_share": 0.0}, "answer_share=0.0"),
        ({"ridge": -1.0}, "ridge=-1.0"),
        ({"step": 0.0}, "step=0.0"),
        ({"refinements": -1}, "refinements=-1"),
        ({"refinements": 1, "fitting": "parallel"}, "sequential"),
    ],
)
def test_settings_that_cannot_be_meant(setting: dict[str, Any], message: str) -> None:
    """Named with the nearest choice or the range."""
    with pytest.raises(ValueError, match=message):
        DistillationSettings(**setting)
