"""Families that nobody listed: they work if an anatomy explains their numbers, and are refused otherwise."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM

from sites.captured import Captured
from sites.site_models import LLAMA, randomise, tiny_config
from trimtab import SteeringConfig
from trimtab.sites import decoder_layers, family_of, locate, site_names

UNLISTED = {
    "starcoder2": ("llama", LLAMA),
    "stablelm": ("llama", {**LLAMA, "use_parallel_residual": True}),
    "cohere": ("llama", LLAMA),
    "gemma": ("llama", {**LLAMA, "head_dim": 8}),
    "olmo3": ("gemma2", LLAMA),
    "gpt_bigcode": ("gpt2", {"vocab_size": 61, "n_embd": 24, "n_layer": 3, "n_head": 4, "n_positions": 64}),
    "falcon": ("bloom", {**LLAMA, "new_decoder_architecture": False}),
}


def llama_that(change: Any, model_type: str = "unheard_of") -> nn.Module:
    """A tiny Llama of an unlisted model_type, after `change` has been done to its first layer."""
    model = AutoModelForCausalLM.from_config(tiny_config("llama")).eval()
    for config in {
        id(module.config): module.config for module in model.modules() if hasattr(module, "config")
    }.values():
        config.model_type = model_type
    change(model.model.layers[0])
    return model


@pytest.mark.parametrize("name", UNLISTED)
def test_an_unlisted_family_works_by_structure(tiny: Any, name: str) -> None:
    """The anatomy that fits is taken, and the stream gains what its hosts carry."""
    anatomy, changes = UNLISTED[name]
    model = tiny(name, **changes)
    assert family_of(model).name == anatomy
    captured = Captured(model)
    for i in range(3):
        total = captured["x", i] + captured["attention", i] + captured["mlp", i]
        torch.testing.assert_close(total, captured["block", i], rtol=1e-5, atol=1e-5)
        assert captured["heads", i].shape[-1] == captured.hosts["heads"][i].width


def test_the_check_holds_in_bfloat16(tiny: Any) -> None:
    """Rounding of the stream is not taken for another anatomy."""
    assert family_of(tiny("starcoder2", **LLAMA).to(torch.bfloat16)).name == "llama"


def test_the_check_leaves_no_trace(tiny: Any) -> None:
    """After the check no hook is left, training flags are as before, the random state has not moved."""
    model = tiny("starcoder2", **LLAMA)
    model.train()
    model.model.layers[1].eval()
    flags = [module.training for module in model.modules()]
    state = torch.random.get_rng_state()
    family_of(model)
    assert [module.training for module in model.modules()] == flags
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in decoder_layers(model)[1].modules())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_no_anatomy_fits() -> None:
    """Mamba has no attention and no MLP: the error names the file to add, the modules seen, the way out."""
    model = AutoModelForCausalLM.from_config(tiny_config("mamba", vocab_size=61, hidden_size=16, num_hidden_layers=2))
    with pytest.raises(ValueError, match="No known anatomy fits") as caught:
        locate(model, "block")
    for part in (
        "MambaModel (model_type 'mamba')",
        "MambaBlock(norm: MambaRMSNorm, mixer: MambaMixer)",
        "src/trimtab/sites/families/mamba.py",
        "docs/how-to/add-a-family.md",
        "target_modules",
        "llama: 'backbone.layers.0' (MambaBlock) has no child 'self_attn'",
    ):
        assert part in str(caught.value)


def double_attention(layer: nn.Module) -> None:
    """The layer adds its attention twice: the names are Llama's, the arithmetic is not."""
    plain = layer.forward

    def changed(hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        kept: list[torch.Tensor] = []
        handle = layer.self_attn.register_forward_hook(lambda _, __, out: kept.append(out[0]))
        out = plain(hidden_states, **kwargs)
        handle.remove()
        return out + kept[0]

    layer.forward = changed


def unused_mlp(layer: nn.Module) -> None:
    """The layer has an MLP that is never called."""
    layer.forward = lambda hidden_states, **kwargs: hidden_states + layer.self_attn(hidden_states, **kwargs)[0]


def layer_scale(layer: nn.Module) -> None:
    """The layer has a scale of its own."""
    layer.scale = nn.Parameter(torch.ones(24))


def third_sublayer(layer: nn.Module) -> None:
    """The layer has one more sub-layer than Llama's."""
    layer.memory = nn.Linear(24, 24)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (double_attention, "llama: what attention and the MLP return is not what the stream gains"),
        (unused_mlp, "llama: what attention and the MLP return is not what the stream gains"),
        (layer_scale, r"llama: 'model\.layers\.0' has a tensor 'scale' of its own"),
        (third_sublayer, r"llama: 'model\.layers\.0' has another child 'memory' \(Linear\)"),
    ],
)
def test_familiar_names_are_not_believed(change: Any, reason: str) -> None:
    """A layer with Llama's names that computes something else is refused, and the reason is said."""
    assert family_of(llama_that(lambda layer: None)).name == "llama"
    with pytest.raises(ValueError, match=reason):
        family_of(llama_that(change))


def test_an_unlisted_multiplier_is_found(tiny: Any) -> None:
    """Granite under another model_type is recognised as Granite, and its hosts carry the multiplier."""
    model = tiny("granite")
    model.config.model_type = "unheard_of"
    assert family_of(model).name == "granite"
    assert {host.multiplier for host in locate(model, "mlp")} == {0.22}
    assert {host.multiplier for host in locate(model, "mlp_input")} == {1.0}


def test_a_failure_during_the_check_says_what_was_tried() -> None:
    """If the unlisted model cannot be run, its own error comes with a note on why it was run."""

    def broken(layer: nn.Module) -> None:
        def fail(*args: Any, **kwargs: Any) -> None:
            raise RuntimeError("no such kernel")

        layer.mlp.forward = fail

    with pytest.raises(RuntimeError, match="no such kernel") as caught:
        family_of(llama_that(broken))
    assert "whether LlamaModel is built like 'llama'" in caught.value.__notes__[0]


@pytest.mark.parametrize("site", site_names())
def test_steered_layers_are_still_recognised(tiny: Any, site: str) -> None:
    """An adapter that already shifts the layer's tensors does not make the layer look foreign."""
    model = get_peft_model(tiny("starcoder2", **LLAMA), SteeringConfig(r=2, site=site))
    randomise(model, seed=3)
    # A copy: the check of the original is remembered.
    assert family_of(copy.deepcopy(model)).name == "llama"
