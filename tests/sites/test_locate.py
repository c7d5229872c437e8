"""`locate` and `family_of`: which layers, which names, and the errors of a wrong request."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from sites.site_models import FAMILIES
from trimtab.sites import decoder_layers, family_of, locate, site_names
from trimtab.sites.families import known_families


def test_the_sites_are_the_files_of_the_folder() -> None:
    """The six sites are there, in alphabetical order; helpers in the folder are not."""
    assert site_names() == ("attention", "attention_input", "block", "heads", "mlp", "mlp_input")


def test_hosts_are_named_in_the_model_that_was_passed_in(tiny: Any) -> None:
    """The dotted names start at the module that was passed in, with its head or without."""
    model = tiny("llama")
    assert [host.module for host in locate(model, "mlp")] == [f"model.layers.{i}.mlp" for i in range(3)]
    assert [host.module for host in locate(model.model, "heads")] == [f"layers.{i}.self_attn.o_proj" for i in range(3)]
    assert [host.module for host in locate(model, "block")] == [f"model.layers.{i}" for i in range(3)]


def test_the_input_side_is_where_something_is_read(tiny: Any, family: str) -> None:
    """The two inputs and heads are arguments of their hosts, the other sites are what their hosts return."""
    model = tiny(family)
    sides = {site: {host.side for host in locate(model, site)} for site in site_names()}
    read, made = {"input"}, {"output"}
    reading = dict.fromkeys(("attention_input", "heads", "mlp_input"), read)
    assert sides == {**dict.fromkeys(("attention", "block", "mlp"), made), **reading}


def test_layers_are_those_asked_for_in_order(tiny: Any) -> None:
    """layers=[2, 0] gives the hosts of layers 0 and 2, in this order."""
    assert [host.layer for host in locate(tiny("gpt2"), "block", [2, 0])] == [0, 2]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([0, 3], "Layer 3 is not there: the model has 3, from 0 to 2"),
        ([-1], "Layer -1 is not there: the model has 3, from 0 to 2"),
        ([1, 0, 1], "Layer 1 is named twice"),
        ([], "layers is empty"),
        ([True], "whole numbers, but one is True"),
        (["1"], "whole numbers, but one is '1'"),
        ([1.0], r"whole numbers, but one is 1\.0"),
    ],
)
def test_layers_that_cannot_be_are_refused(tiny: Any, layers: list[Any], message: str) -> None:
    """Layers out of range, negative, twice, none, no numbers: an error that names the layer."""
    with pytest.raises(ValueError, match=message):
        locate(tiny("llama"), "block", layers)


def test_an_unknown_site_names_the_nearest(tiny: Any) -> None:
    """A misspelt site is refused, with the nearest name and all choices."""
    with pytest.raises(
        ValueError, match=r"Unknown site 'mlp_imput'\. Did you mean 'mlp_input'\?.*attention, attention_input, block"
    ):
        locate(tiny("llama"), "mlp_imput")


def test_every_required_model_type_is_listed_once() -> None:
    """Each tested model type belongs to exactly one family: none rests on the check by structure."""
    listed = [model_type for family in known_families() for model_type in family.model_types]
    assert sorted(listed) == sorted({name.partition("-")[0] for name in FAMILIES})


def test_a_family_is_named_like_its_file() -> None:
    """The name that errors print is the name of the file to look into."""
    from trimtab.registry import modules_in
    from trimtab.sites import families as package

    for module in modules_in(package):
        assert module.FAMILY.name == module.__name__.rpartition(".")[2]


def test_a_listed_family_whose_layer_is_built_differently_is_refused(tiny: Any) -> None:
    """model_type alone is not believed: a Llama whose layer lost its MLP gives an error that says where."""
    model = tiny("llama")
    del model.model.layers[1].mlp
    message = r"not built like the family 'llama': 'model.layers.1' \(LlamaDecoderLayer\) has no child 'mlp'"
    with pytest.raises(ValueError, match=message):
        locate(model, "mlp")


def test_bloom_that_by_passes_its_matrices_is_refused(tiny: Any) -> None:
    """With slow_but_exact Bloom by-passes its modules: a shift there would silently do nothing."""
    with pytest.raises(ValueError, match="slow_but_exact is on in the config"):
        locate(tiny("bloom", slow_but_exact=True), "block")


def test_a_plain_network_is_pointed_to_target_modules() -> None:
    """A network that is no transformers model has no sites: the error names the way out."""
    with pytest.raises(ValueError, match=r"Sequential is not a transformers model.*target_modules"):
        locate(nn.Sequential(nn.Linear(2, 2)), "block")


def test_an_encoder_and_decoder_is_refused() -> None:
    """T5 has two stacks; sites are defined in decoder-only models."""
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=61, d_model=16, d_kv=4, d_ff=16, num_layers=2, num_heads=4)
    with pytest.raises(ValueError, match="has an encoder and a decoder"):
        locate(T5ForConditionalGeneration(config), "block")


def test_a_list_that_lost_layers_is_refused(tiny: Any) -> None:
    """A model that was cut without its config is refused: the error says how many layers were expected."""
    model = tiny("llama")
    model.model.layers = model.model.layers[:2]
    with pytest.raises(ValueError, match=re.escape("Expected one list of 3 decoder layers (num_hidden_layers)")):
        decoder_layers(model)


def test_nothing_runs_and_nothing_is_needed_but_the_config(tiny: Any) -> None:
    """Sites are found in a model on the meta device: parameters are counted on such models."""
    from site_models import tiny_config
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(tiny_config("qwen3"))
    assert [host.width for host in locate(model, "heads")] == [32, 32, 32]
    assert family_of(model).name == "llama"
