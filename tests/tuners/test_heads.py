"""Interventions on attention heads in a model: which heads, how many parameters, saved and loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from test_parameter_counts import BASE, counts

from sites.site_models import FAMILIES
from tiny_models import assert_same, draw_adapters, fingerprint, steering_layers, tiny_model
from trimtab import SteeringConfig, set_strength
from trimtab.sites import locate
from tuners.steered_heads import IDS, each_method, heads_config, logits


@pytest.mark.parametrize("family", [name for name in FAMILIES if "-" not in name])
def test_every_family_says_how_many_heads_there_are(family: str) -> None:
    """Four query heads in every tiny model, whatever the key heads and the head's width are."""
    model = tiny_model(family)
    assert {host.heads for host in locate(model, "heads")} == {4}
    assert {host.heads for site in ("block", "mlp", "attention") for host in locate(model, site)} == {None}


@pytest.mark.parametrize("family", ["qwen3", "gemma3_text", "gpt2"])
def test_a_head_is_what_the_attention_computes_for_it(family: str) -> None:
    """Steering head 2 of layer 1 moves the input of the output projection at that head's columns, and nowhere else.

    Qwen3 and Gemma 3 have 4 query heads of 8 numbers, 2 key heads, and a stream of 24: not 4 x 8.
    """
    model = tiny_model(family)
    (host,) = locate(model, "heads", [1])
    head_dim = host.width // 4
    assert (family == "gpt2") == (host.width == 24)
    seen: list[torch.Tensor] = []
    adapted = get_peft_model(model, heads_config("head_bias", heads=[[1, 2]], init_weights=False)).eval()
    projection = adapted.get_base_model().get_submodule(host.module)
    projection.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    logits(adapted)
    set_strength(adapted, 0.0)
    logits(adapted)
    difference = (seen[0] - seen[1]).view(2, 7, 4, head_dim)
    bias = steering_layers(adapted)[0].intervention("default").bias.detach()
    torch.testing.assert_close(difference[:, :, 2], bias.expand(2, 7, head_dim))
    assert not difference[:, :, [0, 1, 3]].any()


@each_method
def test_only_layers_with_a_selected_head_get_an_adapter(method: str) -> None:
    """Heads in layers 0 and 2: two steering layers, with parameters for one and two heads."""
    model = get_peft_model(tiny_model("qwen3"), heads_config(method, heads=[[2, 3], [0, 1], [2, 0]]))
    found = [(layer.intervention("default").heads.layer, layer.intervention("default").heads.selected)
             for layer in steering_layers(model)]  # fmt: skip
    assert found == [(0, (1,)), (2, (0, 3))]
    a_head = {"head_scale": 8, "head_bias": 8, "jola": 18}[method]
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 3 * a_head


@each_method
@pytest.mark.parametrize("heads", [None, [[0, 1], [2, 0], [2, 3]]], ids=["all", "selected"])
def test_saved_and_loaded_bit_for_bit(method: str, heads: list[list[int]] | None, tmp_path: Path) -> None:
    """The logits of a loaded adapter are those of the saved one; the selection is in its configuration."""
    model = get_peft_model(tiny_model("gemma3_text"), heads_config(method, heads=heads)).eval()
    draw_adapters(model)
    expected = logits(model)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["heads"] == heads
    base = tiny_model("gemma3_text")
    plain = logits(base)
    loaded = PeftModel.from_pretrained(base, tmp_path)
    assert torch.equal(logits(loaded), expected)
    assert not torch.allclose(expected, plain)
    with loaded.disable_adapter():
        assert torch.equal(logits(loaded), plain)


def test_an_adapter_of_other_heads_does_not_load(tmp_path: Path) -> None:
    """A configuration whose heads were edited to more than the file holds is an error that names the key."""
    get_peft_model(tiny_model("qwen3"), heads_config("head_bias", heads=[[0, 1]])).save_pretrained(tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"heads": [[0, 1], [0, 2]]}))
    with pytest.raises(ValueError, match=r"layers.0.*shape \[1, 8\].*needs \[2, 8\]"):
        PeftModel.from_pretrained(tiny_model("qwen3"), tmp_path)


@each_method
def test_taking_off_leaves_the_base(method: str) -> None:
    """After unload the model has the keys, hooks and attributes that it had, the hook of the penalty included."""
    model = tiny_model("llama")
    before = fingerprint(model, trainable=False)
    base = get_peft_model(model, heads_config(method)).unload()
    assert_same(before, fingerprint(base, trainable=False))


@each_method
def test_a_wrong_head_leaves_the_model_as_it_was(method: str) -> None:
    """The error names layer, head and what there is; nothing stays behind."""
    model = tiny_model("llama")
    before = fingerprint(model)
    with pytest.raises(ValueError, match="Head 4 of layer 1 is not there: the layer has 4, from 0 to 3"):
        get_peft_model(model, heads_config(method, heads=[[1, 4]]))
    with pytest.raises(ValueError, match="Layer 3 is not there: the model has 3"):
        get_peft_model(model, heads_config(method, heads=[[3, 0]]))
    assert_same(before, fingerprint(model))


def test_heads_that_are_not_selected_yet_cannot_be_attached() -> None:
    """A configuration that leaves the heads open names the ways to find them."""
    with pytest.raises(ValueError, match=r"trimtab\.training\.train finds them.*trimtab\.select_heads"):
        get_peft_model(tiny_model("llama"), heads_config("head_bias", select_heads=0.5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"site": "block"}, r"'head_bias' edits attention heads: it needs site='heads'"),
        ({"site": "block", "target_modules": ["fc"]}, r"needs site='heads'"),
        ({"heads": []}, r"heads must name at least one head"),
        ({"heads": "all"}, r"heads='all' must be a list of \[layer, head\] pairs"),
        ({"heads": {0: [1]}}, r"must be a list of \[layer, head\] pairs"),
        ({"heads": [3]}, r"heads: 3 is not a pair"),
        ({"heads": [[0, 1, 2]]}, r"\[0, 1, 2\] is not a pair"),
        ({"heads": [[0, -1]]}, r"-1 in \[0, -1\] is not the index"),
        ({"heads": [[0, 1.0]]}, r"1\.0 in"),
        ({"heads": [[0, True]]}, r"True in"),
        ({"heads": [[0, 1], (0, 1)]}, r"heads names \[0, 1\] twice"),
        ({"heads": [[0, 1]], "layers": [0]}, r"leave layers and select_heads out"),
        ({"heads": [[0, 1]], "select_heads": 3}, r"leave layers and select_heads out"),
        ({"select_heads": 0}, r"select_heads=0 must be"),
        ({"select_heads": 2.5}, r"select_heads=2\.5 must be a whole number of heads, or a share"),
        ({"select_heads": True}, r"select_heads=True must be"),
        ({"penalty": 1.0}, r"'head_bias' takes no penalty"),
        ({"intervention": "jola", "penalty": -1.0}, r"penalty=-1\.0 must be"),
        ({"intervention": "jola", "penalty": float("nan")}, r"penalty=nan must be"),
        ({"intervention": "jola", "penalty": "0"}, r"penalty='0' must be"),
        ({"intervention": "vector", "heads": [[0, 1]]}, r"'vector' takes no heads"),
        ({"intervention": "low_rank", "select_heads": 3}, r"'low_rank' takes no select_heads"),
    ],
)
def test_a_mistake_in_the_configuration_is_named(options: dict[str, Any], message: str) -> None:
    """Each wrong value is an error of the constructor that names the field."""
    with pytest.raises(ValueError, match=message):
        SteeringConfig(**{"intervention": "head_bias", "site": "heads", **options})


def test_a_fresh_adapter_on_an_evaluating_base_evaluates() -> None:
    """A base in evaluation mode, as from_pretrained gives it: JoLA's gates are settled, two passes agree."""
    model = get_peft_model(tiny_model("llama"), heads_config("jola"))
    draw_adapters(model)
    assert torch.equal(logits(model), logits(model))
    model.train()
    assert not torch.equal(logits(model), logits(model))


@pytest.mark.parametrize(
    ("name", "method", "by_hand"),
    [
        ("Llama-3.2-1B", "head_bias", 16 * 2048),
        ("Llama-3.2-1B", "head_scale", 16 * 2048),
        ("Llama-3.2-1B", "jola", 16 * (2 * 2048 + 2 * 32)),
        ("gemma-3-1b", "head_bias", 26 * 4 * 256),
        ("gemma-3-1b", "jola", 26 * 4 * (2 * 256 + 2)),
        ("Qwen3-4B", "head_bias", 36 * 32 * 128),
    ],
)
def test_parameter_counts(name: str, method: str, by_hand: int) -> None:
    """head_dim a head, for JoLA 2 head_dim + 2; on Llama-3.2-1B LoFiT's 32,768 are the paper's 0.0027 %."""
    trained, base = counts(name, intervention=method, site="heads")
    assert (trained, base) == (by_hand, BASE[name])
    if (name, method) == ("Llama-3.2-1B", "head_bias"):
        assert trained == 32_768
        assert round(100 * trained / base, 4) == 0.0027


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing_draws_the_same_gates_again(use_reentrant: bool) -> None:
    """What is re-computed in the backward pass has the gates of the forward pass: the gradients agree."""
    gradients = []
    for checkpointing in (False, True):
        model = get_peft_model(tiny_model("llama"), heads_config("jola"))
        draw_adapters(model)
        if checkpointing:
            model.get_base_model().gradient_checkpointing_enable({"use_reentrant": use_reentrant})
            model.enable_input_require_grads()
        torch.manual_seed(3)
        model.train()(input_ids=IDS, labels=IDS).loss.backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)
