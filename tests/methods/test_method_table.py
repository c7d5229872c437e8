"""The table of methods: what each row is, the rule and the rates to train it by, and the page that shows it."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from tiny_language import tiny_config, tiny_model
from trimtab.methods import METHODS, Method, attach, get_method, parameter_count

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"

# SmolLM2-135M: L layers of width d, nine heads and three for keys and values, an MLP of width m.
L, D, KV, M = 30, 576, 192, 1536
SMOLLM2 = LlamaConfig(
    vocab_size=49152,
    hidden_size=D,
    intermediate_size=M,
    num_hidden_layers=L,
    num_attention_heads=9,
    num_key_value_heads=3,
    tie_word_embeddings=True,
)
# The inputs and outputs of the seven projections, which LoRA's factors have; the outputs, of which DoRA has magnitudes.
ENDS = (D + D) + 2 * (D + KV) + (D + D) + 2 * (D + M) + (M + D)
OUTPUTS = D + 2 * KV + D + 2 * M + D
LOW_RANK, VECTOR, REFT, LORA = 2 * 8 * D * L, D * L, (2 * 8 * D + 8) * L, 8 * ENDS * L

COUNTS = {
    "sft": 134_515_008,
    "lora": 2_442_240,
    "lora-r16": 2 * LORA,
    "dora": LORA + OUTPUTS * L,
    "post-block": 276_480,
    "post-block-nonlinear": LOW_RANK,
    "post-block-r1": 2 * D * L,
    "1-vec": 17_280,
    "post-block-normalized": LOW_RANK + VECTOR,
    "post-block-plus": LOW_RANK + VECTOR,
    "post-mlp": LOW_RANK,
    "post-mlp-nonlinear": LOW_RANK,
    "post-mlp-vector": VECTOR,
    "pre-mlp": LOW_RANK,
    "pre-mlp-nonlinear": LOW_RANK,
    "pre-mlp-vector": VECTOR,
    "post-attention": LOW_RANK,
    "post-attention-nonlinear": LOW_RANK,
    "post-attention-vector": VECTOR,
    "reft": REFT,
    "reft-last": REFT,
    "reft-all": REFT,
    "reft-block": REFT,
    "direft": REFT,
    "direft-block": REFT,
    "nodireft": REFT,
    "lofit-all-heads": VECTOR,
    "lofit": 8 * 64,  # 3 % of 270 heads, 64 numbers each
    "jola": 2 * VECTOR + 2 * 9 * L,
    "joint": LORA + 8 * LOW_RANK,
    "joint-orth": LORA + 8 * LOW_RANK,
}
"""Summed up by hand; the numbers that are written out were counted on the real SmolLM2-135M."""

each_method = pytest.mark.parametrize("name", METHODS)


def skeleton(config: PreTrainedConfig) -> PreTrainedModel:
    """A model without memory."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def cells(method: Method) -> list[str]:
    """The row of a method as the page has it."""
    rule = f"{method.schedule}, {100 * method.warmup_ratio:g} % warm-up" if method.warmup_ratio else method.schedule
    code = [f"`{cell}`" if cell != "-" else "-" for cell in (method.where, method.positions)]
    return [f"`{method.name}`", method.description, code[0], method.what, code[1], method.weights, method.rates, rule]


def test_every_method_is_counted_by_hand() -> None:
    """A new row needs a count here."""
    assert COUNTS.keys() == METHODS.keys()


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_counts_on_smollm2(name: str, count: int) -> None:
    """Factors, vectors, biases and magnitudes of every layer; nothing else is trained."""
    assert parameter_count(skeleton(SMOLLM2), get_method(name)) == count


def test_counting_leaves_the_model_alone() -> None:
    """It works on a copy of the structure."""
    model = tiny_model()
    keys = set(model.state_dict())
    parameter_count(model, get_method("lora"))
    assert set(model.state_dict()) == keys
    assert not hasattr(model, "peft_config")


def test_a_config_alone_is_enough() -> None:
    """2 x width x rank a layer."""
    assert parameter_count(skeleton(tiny_config()), get_method("post-block", r=4)) == 3 * 2 * 32 * 4


def test_a_rank_that_does_not_fit_is_an_error() -> None:
    """Counting says so, as training would."""
    with pytest.raises(ValueError, match="r=64 must lie between 1 and the width of the site, 32"):
        parameter_count(skeleton(tiny_config()), get_method("joint"))


@each_method
def test_rules_of_the_paper(name: str) -> None:
    """Constant and plain for steering, but for ours and JoLA; cosine with warm-up for these and for weights."""
    method = METHODS[name]
    if method.family == "steering" and name not in {"post-block-normalized", "post-block-plus", "jola"}:
        assert (method.schedule, method.warmup_ratio) == ("constant", 0.0)
    else:
        assert method.schedule == "cosine"
        assert method.warmup_ratio > 0
    assert method.weight_decay == 0.0


@each_method
def test_five_rates_to_choose_from(name: str) -> None:
    """The same number for every method, in ascending order, none further than 2.5 times from the next."""
    rates = METHODS[name].learning_rates
    assert len(rates) == 5
    assert METHODS[name].learning_rate in rates
    assert all(1 < higher / lower <= 3 for lower, higher in pairwise(rates))


def test_fewer_parameters_get_higher_rates() -> None:
    """Appendix F.2: from all weights over LoRA and matrices to vectors, the grid moves up at both ends."""
    grids = [METHODS[name].learning_rates for name in ("sft", "lora", "post-block", "1-vec")]
    for fewer, more in pairwise(reversed(grids)):
        assert fewer[0] > more[0]
        assert fewer[-1] > more[-1]
    assert METHODS["reft"].learning_rates == METHODS["post-block"].learning_rates  # "ReFT and ours"
    assert METHODS["post-block-r1"].learning_rates == METHODS["1-vec"].learning_rates  # "r=1 and vector"


@each_method
def test_a_recipe_can_hold_a_method(name: str) -> None:
    """Its settings survive YAML and JSON."""
    settings = get_method(name).to_dict()
    assert yaml.safe_load(yaml.safe_dump(settings)) == settings == json.loads(json.dumps(settings))


def test_lora_adapts_all_linear_layers_of_a_family_with_other_names() -> None:
    """GPT-2 has no q_proj: its four projections a layer are adapted, its head is not; in a joint method too."""
    for name in ("lora", "joint-orth"):
        model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=64, n_head=4, vocab_size=100, n_positions=32))
        attach(model, get_method(name))
        adapted = {name.partition(".lora_A")[0] for name, _ in model.named_parameters() if ".lora_A" in name}
        assert len(adapted) == 8, name
        assert not any("lm_head" in name for name in adapted), name


def test_full_fine_tuning_trains_float32_copies_of_all_weights() -> None:
    """A base that is half precise, or that an adapter has frozen before, is trained whole."""
    tuned = attach(tiny_model().to(torch.bfloat16).requires_grad_(False), get_method("sft"))
    assert all(parameter.requires_grad for parameter in tuned.parameters())
    assert {parameter.dtype for parameter in tuned.parameters()} == {torch.float32}


def test_the_columns_say_where_what_which_tokens_and_which_weights() -> None:
    """Of a method that nobody named, and of the ones without a site."""
    method = get_method("post-mlp", layers=[0, 2], activation="tanh", use_bias=True, positions="generated")
    assert method.where == "mlp, layers 0, 2"
    assert method.what == "low_rank, r=8, activation=tanh, use_bias"
    assert (method.positions, method.weights) == ("generated", "-")
    assert METHODS["dora"].weights == "DoRA, r=8"
    assert (METHODS["sft"].weights, METHODS["sft"].where, METHODS["sft"].what) == ("all", "-", "-")
    joint = METHODS["joint-orth"]
    assert (joint.where, joint.what, joint.weights) == ("block", "low_rank, r=64", "LoRA, r=8, constraint=orthogonal")
    assert METHODS["lora"].rates == "5e-5 1e-4 [3e-4] 7e-4 1.5e-3"


def test_the_page_shows_the_table() -> None:
    """docs/methods.md has a row for each method, and no other, that says what METHODS says."""
    rows = re.findall(r"^\| (`[\w-]+` \|.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [" | ".join(cells(method)) for method in METHODS.values()]
