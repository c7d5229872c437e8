"""Each site in every family is the tensor that its definition says, judged by the model's own arithmetic."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from first_argument import replace_first_argument
from sites.captured import Captured
from sites.site_models import tiny_model
from trimtab.sites import decoder_layers, locate

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}

# What the layer does, by hand from each family's definition: in front of the MLP, the MLP, behind the heads.
LLAMA = (
    lambda layer, x, u: layer.post_attention_layernorm(u),
    lambda layer, h: layer.mlp(h),
    lambda layer, heads: layer.self_attn.o_proj(heads),
)
GEMMA = (
    lambda layer, x, u: layer.pre_feedforward_layernorm(u),
    lambda layer, h: layer.post_feedforward_layernorm(layer.mlp(h)),
    lambda layer, heads: layer.post_attention_layernorm(layer.self_attn.o_proj(heads)),
)
ORACLES: dict[str, Any] = {
    **dict.fromkeys(
        ("llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "phi3", "smollm3", "granite"), LLAMA
    ),
    **dict.fromkeys(("gemma2", "gemma3_text"), GEMMA),
    "olmo2": (lambda layer, x, u: u, *GEMMA[1:]),
    "gpt2": (
        lambda layer, x, u: layer.ln_2(u),
        lambda layer, h: layer.mlp(h),
        lambda layer, heads: heads @ layer.attn.c_proj.weight + layer.attn.c_proj.bias,
    ),
    "gpt_neox": (
        lambda layer, x, u: layer.post_attention_layernorm(x),
        lambda layer, h: layer.mlp(h),
        lambda layer, heads: layer.attention.dense(heads),
    ),
    "gpt_neox-sequential": (
        lambda layer, x, u: layer.post_attention_layernorm(u),
        lambda layer, h: layer.mlp(h),
        lambda layer, heads: layer.attention.dense(heads),
    ),
    "gptj": (
        lambda layer, x, u: layer.ln_1(x),
        lambda layer, h: layer.mlp(h),
        lambda layer, heads: layer.attn.out_proj(heads),
    ),
    "bloom": (
        lambda layer, x, u: layer.post_attention_layernorm(u),
        lambda layer, h: layer.mlp(h, torch.zeros_like(h)),
        lambda layer, heads: layer.self_attention.dense(heads),
    ),
    "opt": (
        lambda layer, x, u: layer.final_layer_norm(u),
        lambda layer, h: layer.fc2(torch.relu(layer.fc1(h))),
        lambda layer, heads: layer.self_attn.out_proj(heads),
    ),
}


NORMS = {"gpt2": "ln_1", "gptj": "ln_1", "opt": "self_attn_layer_norm"}
"""The norm in front of attention where it is not called input_layernorm; OLMo 2 has none."""


@cache
def flow(family: str) -> tuple[nn.Module, Captured]:
    """The family's tiny model and its tensors, for tests that change neither."""
    model = tiny_model(family)
    return model, Captured(model)


def multiplier(model: Any) -> float:
    """What the config says, read by the one name that a tested family uses for it."""
    return getattr(model.config, "residual_multiplier", 1.0)


def test_the_stream_gains_what_attention_and_mlp_add(family: str) -> None:
    """x + m attention + m mlp = block, in sequential and in parallel layers."""
    model, captured = flow(family)
    for i in range(3):
        m = captured.hosts["mlp"][i].multiplier
        assert m == captured.hosts["attention"][i].multiplier == multiplier(model)
        total = captured["x", i] + m * captured["attention", i] + m * captured["mlp", i]
        assert_close(total, captured["block", i], **TOLERANCE)
        for part in ("attention", "mlp"):
            assert captured[part, i].abs().mean() > 1e-2, "a vanishing part would prove nothing"


def test_the_block_is_the_stream_that_the_next_layer_reads(family: str) -> None:
    """The block output of layer i is the input of layer i + 1."""
    _, captured = flow(family)
    for i in range(2):
        assert torch.equal(captured["block", i], captured["x", i + 1])


def test_the_mlp_reads_mlp_input_and_adds_mlp(family: str) -> None:
    """mlp_input is the normalised stream, and the MLP (with a post-norm) makes the mlp tensor of it."""
    model, captured = flow(family)
    norm, mlp, _ = ORACLES[family]
    for i, layer in enumerate(decoder_layers(model)[1]):
        x = captured["x", i]
        u = x + multiplier(model) * captured["attention", i]
        with torch.no_grad():
            assert_close(norm(layer, x, u), captured["mlp_input", i], **TOLERANCE)
            assert_close(mlp(layer, captured["mlp_input", i]), captured["mlp", i], **TOLERANCE)


def test_attention_reads_attention_input(family: str) -> None:
    """It is the normalised input of the layer, and a shift of it reaches the stream through attention alone."""
    model, captured = flow(family)
    for i, layer in enumerate(decoder_layers(model)[1]):
        x = captured["x", i]
        norm = nn.Identity() if family == "olmo2" else getattr(layer, NORMS.get(family, "input_layernorm"))
        with torch.no_grad():
            assert_close(norm(x), captured["attention_input", i], **TOLERANCE)

    (host,) = locate(model, "attention_input", [1])
    vector = torch.randn(host.width, generator=torch.Generator().manual_seed(1))
    handle = replace_first_argument(model.get_submodule(host.module), lambda h: h + vector)
    shifted = Captured(model)
    handle.remove()
    assert torch.equal(shifted["x", 1], captured["x", 1])
    assert (shifted["attention", 1] - captured["attention", 1]).abs().mean() > 1e-3
    m = multiplier(model)
    total = shifted["x", 1] + m * shifted["attention", 1] + m * shifted["mlp", 1]
    assert_close(total, shifted["block", 1], **TOLERANCE)


def test_attention_is_the_projection_of_the_heads(family: str) -> None:
    """The output projection (and a post-norm) makes the attention tensor of the heads tensor."""
    model, captured = flow(family)
    project = ORACLES[family][2]
    for i, layer in enumerate(decoder_layers(model)[1]):
        with torch.no_grad():
            assert_close(project(layer, captured["heads", i]), captured["attention", i], **TOLERANCE)


def test_the_width_is_the_last_dimension(family: str) -> None:
    """Every host says the width that its tensor has, and hosts come in the order of layers."""
    _, captured = flow(family)
    for site, hosts in captured.hosts.items():
        assert [host.layer for host in hosts] == [0, 1, 2]
        assert [host.width for host in hosts] == [captured.at[site, i].shape[-1] for i in range(3)]


def test_a_vector_added_to_the_mlp_arrives_in_the_stream(family: str) -> None:
    """A constant v added at the mlp host of one layer shifts its block output by m v, and no earlier one."""
    model, plain = flow(family)
    host = locate(model, "mlp", [1])[0]
    vector = torch.randn(host.width, generator=torch.Generator().manual_seed(1))
    shifted = Captured(model, added={host: vector})
    assert torch.equal(shifted["block", 0], plain["block", 0])
    expected = (host.multiplier * vector).expand_as(plain["block", 1])
    assert_close(shifted["block", 1] - plain["block", 1], expected, **TOLERANCE)


@pytest.mark.parametrize("name", ["gpt_neox", "gptj"])
def test_in_parallel_layers_the_mlp_does_not_see_attention(tiny: Any, name: str) -> None:
    """A constant v added at the attention host shifts the block output by exactly v."""
    model = tiny(name)
    host = locate(model, "attention", [1])[0]
    vector = torch.randn(host.width, generator=torch.Generator().manual_seed(1))
    plain, shifted = Captured(model), Captured(model, added={host: vector})
    assert_close(shifted["block", 1] - plain["block", 1], vector.expand_as(plain["block", 1]), **TOLERANCE)


@pytest.mark.parametrize(
    ("name", "attention", "head_dim"),
    [
        ("llama", "self_attn", 8),
        ("qwen3", "self_attn", 8),
        ("gemma3_text", "self_attn", 8),
        ("gptj", "attn", 6),
    ],
)
def test_a_head_owns_its_slice(tiny: Any, name: str, attention: str, head_dim: int) -> None:
    """Changing the query of head 2 changes the third head_dim columns of the heads tensor, and no other."""
    model = tiny(name)
    plain = Captured(model)["heads", 0]
    assert plain.shape[-1] == 4 * head_dim
    query = getattr(decoder_layers(model)[1][0], attention).q_proj.weight
    with torch.no_grad():
        query[2 * head_dim : 3 * head_dim] += torch.linspace(-1, 1, head_dim)[:, None]
    changed = (Captured(model)["heads", 0] - plain).abs().amax(dim=(0, 1)).view(4, head_dim) > 1e-6
    assert changed[2].all()
    assert not changed[[0, 1, 3]].any()


def test_opt_that_normalises_after_the_addition(tiny: Any) -> None:
    """In OPT-350M the block is the norm of the sum, and what is added comes from the same modules."""
    model = tiny("opt", do_layer_norm_before=False)
    captured = Captured(model)
    for i, layer in enumerate(decoder_layers(model)[1]):
        with torch.no_grad():
            u = layer.self_attn_layer_norm(captured["x", i] + captured["attention", i])
            assert_close(captured["mlp_input", i], u, **TOLERANCE)
            assert_close(layer.final_layer_norm(u + captured["mlp", i]), captured["block", i], **TOLERANCE)
