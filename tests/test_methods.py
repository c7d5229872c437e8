"""Methods by name: their rules, their overrides and their parameter counts."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig

from tiny_language import tiny_config, tiny_model
from trimtab.methods import METHODS, attach, get_method, parameter_count

# SmolLM2-135M's shape; the counts are those measured on the real model.
SMOLLM2 = LlamaConfig(
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    tie_word_embeddings=True,
)
LLAMA_1B = LlamaConfig(
    vocab_size=128256,
    hidden_size=2048,
    intermediate_size=8192,
    num_hidden_layers=16,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=64,
    tie_word_embeddings=True,
)


def skeleton(config: LlamaConfig) -> AutoModelForCausalLM:
    """A model without memory."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize(
    ("method", "count"),
    [
        ("post-block", 276_480),
        ("post-block-nonlinear", 276_480),
        ("post-block-normalized", 293_760),
        ("1-vec", 17_280),
        ("post-mlp", 276_480),
        ("pre-mlp", 276_480),
        ("lora", 2_442_240),
        ("sft", 134_515_008),
    ],
)
def test_counts_on_smollm2(method: str, count: int) -> None:
    """The numbers of parameters that were counted on the real SmolLM2-135M."""
    assert parameter_count(skeleton(SMOLLM2), get_method(method)) == count


@pytest.mark.parametrize(
    ("method", "options", "percent"),
    [("post-block", {}, 0.042), ("post-block", {"r": 1}, 0.0053), ("1-vec", {}, 0.0027)],
)
def test_percentages_of_the_paper(method: str, options: dict[str, int], percent: float) -> None:
    """Llama-3.2-1B, in percent of all its parameters, to the digits that the paper prints."""
    model = skeleton(LLAMA_1B)
    total = sum(parameter.numel() for parameter in model.parameters())
    share = 100 * parameter_count(model, get_method(method, **options)) / total
    assert float(f"{share:.2g}") == percent


def test_counting_leaves_the_model_alone() -> None:
    """It works on a copy of the structure."""
    model = tiny_model()
    keys = set(model.state_dict())
    parameter_count(model, get_method("lora"))
    assert set(model.state_dict()) == keys
    assert not hasattr(model, "peft_config")


@pytest.mark.parametrize("name", METHODS)
def test_rules_of_the_paper(name: str) -> None:
    """Cosine with warm-up for LoRA, full fine-tuning and our own method; constant and plain for steering."""
    method = get_method(name)
    if method.family == "steering" and name != "post-block-normalized":
        assert (method.schedule, method.warmup_ratio, method.weight_decay) == ("constant", 0.0, 0.0)
    else:
        assert method.schedule == "cosine"
        assert method.warmup_ratio > 0


@pytest.mark.parametrize("name", METHODS)
def test_a_recipe_can_hold_a_method(name: str) -> None:
    """Its settings survive YAML and JSON."""
    settings = get_method(name).to_dict()
    assert yaml.safe_load(yaml.safe_dump(settings)) == settings == json.loads(json.dumps(settings))


def test_lora_adapts_all_linear_layers_of_a_family_with_other_names() -> None:
    """GPT-2 has no q_proj: its four projections a layer are adapted, its head is not."""
    model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=32, n_head=4, vocab_size=100, n_positions=32))
    attach(model, get_method("lora"))
    adapted = {name.partition(".lora_A")[0] for name, _ in model.named_parameters() if ".lora_A" in name}
    assert len(adapted) == 8
    assert not any("lm_head" in name for name in adapted)


def test_overrides_reach_the_adapter_and_the_rule() -> None:
    """One of each; the label says what differs from the named method."""
    method = get_method("post-block", r=4, site="mlp", learning_rate=1e-4)
    assert method.learning_rate == 1e-4
    assert method.label == "post-block(r=4, site=mlp)"
    assert get_method("post-block").label == "post-block"
    config = method.peft_config(tiny_model())
    assert (config.r, config.site) == (4, "mlp")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("post-blok", {}, "Did you mean 'post-block'"),
        ("post-block", {"postions": "all"}, "Did you mean 'positions'"),
        ("post-block", {"site": "blok"}, "Did you mean 'block'"),
        ("post-block", {"r": 0}, "r=0"),
        ("post-block", {"learning_rate": -1.0}, "learning_rate=-1.0"),
        ("lora", {"schedule": "cosin"}, "Did you mean 'cosine'"),
        ("sft", {"r": 8}, "Unknown setting of method 'sft'"),
    ],
)
def test_mistakes_are_named(name: str, options: dict[str, object], message: str) -> None:
    """With the nearest valid choice, before a model is loaded."""
    with pytest.raises(ValueError, match=message):
        get_method(name, **options)


def test_full_fine_tuning_unfreezes_a_frozen_base() -> None:
    """A base that an adapter has frozen before is trained whole."""
    model = tiny_model().requires_grad_(False)
    assert all(parameter.requires_grad for parameter in attach(model, get_method("sft")).parameters())


def test_a_config_alone_is_enough_for_the_tiny_model() -> None:
    """2 x width x rank a layer."""
    assert parameter_count(skeleton(tiny_config()), get_method("post-block", r=4)) == 3 * 2 * 32 * 4
