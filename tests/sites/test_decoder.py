"""The decoder layers are found in whatever is wrapped around them, and nothing else is taken for them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from sites.site_models import LLAMA, randomise, tiny_config
from trimtab.sites import decoder_layers, family_of, locate, site_names


@pytest.mark.parametrize("head", [AutoModelForSequenceClassification, AutoModelForTokenClassification])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "gpt_neox"])
def test_task_heads_do_not_matter(name: str, head: Any) -> None:
    """A classifier has the same sites as the language model; only the prefix of the names may differ."""
    classifier = head.from_config(tiny_config(name, num_labels=3))
    causal = AutoModelForCausalLM.from_config(tiny_config(name))
    root, layers = decoder_layers(classifier)
    assert len(layers) == 3
    expected = {site: [host.module for host in locate(causal, site)] for site in site_names()}
    prefix = decoder_layers(causal)[0]
    for site in site_names():
        found = [host.module for host in locate(classifier, site)]
        assert found == [root + module.removeprefix(prefix) for module in expected[site]]


def gemma3_with_vision(vision_layers: int) -> nn.Module:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": vision_layers,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    text = tiny_config("gemma3_text").to_dict()
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=1)
    return Gemma3ForConditionalGeneration(config).eval()


def test_a_vision_tower_is_not_the_decoder() -> None:
    """Gemma 3 with as many vision layers as text layers: the text model's are found."""
    model = gemma3_with_vision(vision_layers=3)
    name, layers = decoder_layers(model)
    assert name == "model.language_model.layers"
    assert {type(layer).__name__ for layer in layers} == {"Gemma3DecoderLayer"}
    assert family_of(model).name == "gemma2"
    assert [host.width for host in locate(model, "block")] == [24, 24, 24]


def test_as_many_experts_as_layers(tiny: Any) -> None:
    """A list of experts inside a layer, as long as the list of layers, is not taken for it."""
    model = tiny("mixtral")
    model.model.layers[0].mlp.more_experts = nn.ModuleList([nn.Sequential(nn.Linear(24, 24)) for _ in range(3)])
    assert decoder_layers(model)[0] == "model.layers"


def test_two_lists_that_fit_are_not_guessed_between(tiny: Any) -> None:
    """A second list of three modules with children makes the choice unclear: an error names both."""
    model = tiny("llama")
    model.model.more = nn.ModuleList([nn.Sequential(nn.Linear(24, 24)) for _ in range(3)])
    with pytest.raises(ValueError, match=r"there are 2: model\.layers, model\.more"):
        decoder_layers(model)


def test_a_list_of_norms_is_not_a_list_of_layers(tiny: Any) -> None:
    """Modules without children are no decoder layers, however many there are."""
    model = tiny("llama")
    model.model.norms = nn.ModuleList([nn.LayerNorm(24) for _ in range(3)])
    assert decoder_layers(model)[0] == "model.layers"


class ValueHead(nn.Module):
    """A wrapper without a config, as reinforcement-learning libraries and DistributedDataParallel have it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.module = model
        self.value = nn.Linear(24, 1)


def test_a_wrapper_without_a_config(tiny: Any) -> None:
    """The names count from the wrapper that was passed in."""
    wrapped = ValueHead(tiny("gptj"))
    assert locate(wrapped, "heads", [1])[0].module == "module.transformer.h.1.attn.out_proj"


@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom", "opt", "qwen3"])
def test_in_a_peft_model_the_wrapper_is_the_host(tiny: Any, name: str) -> None:
    """With LoRA on every matrix the hosts are LoRA's wrappers, and their tensors still make up the stream."""
    plain = tiny(name)
    before = {site: locate(plain, site) for site in site_names()}
    model = get_peft_model(copy.deepcopy(plain), LoraConfig(target_modules="all-linear", r=2))
    randomise(model, seed=3)
    for site, hosts in before.items():
        found = locate(model, site)
        assert [host.module for host in found] == [f"base_model.model.{host.module}" for host in hosts]
        assert [(host.width, host.side, host.layer) for host in found] == [
            (host.width, host.side, host.layer) for host in hosts
        ]
    heads = locate(model, "heads")[1]
    assert isinstance(model.get_submodule(heads.module), LoraLayer)
    read: list[torch.Tensor] = []
    model.get_submodule(heads.module).register_forward_pre_hook(lambda _, args: read.append(args[0]))
    model(input_ids=torch.tensor([[5, 17, 3]]))
    assert read[0].shape[-1] == heads.width


class Wrapper(nn.Module):
    """What PEFT's tuners do: the module under the name `base_layer`, beside something of their own."""

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.extra = nn.Linear(2, 2)


@pytest.mark.parametrize("name", ["llama", "starcoder2"])
def test_wrapped_modules_are_looked_through(tiny: Any, name: str) -> None:
    """With two wrappers around the layer and one around attention, what lies below is found."""
    model = tiny(name, **(LLAMA if name == "starcoder2" else {}))
    locate(model, "block")
    layer = model.model.layers[1]
    layer.self_attn = Wrapper(layer.self_attn)
    model.model.layers[1] = Wrapper(Wrapper(layer))
    inside = "model.layers.1.base_layer.base_layer"
    assert locate(model, "block", [1])[0].module == "model.layers.1"
    assert locate(model, "mlp", [1])[0].module == f"{inside}.mlp"
    assert locate(model, "attention", [1])[0].module == f"{inside}.self_attn"
    assert locate(model, "heads", [1])[0].module == f"{inside}.self_attn.base_layer.o_proj"


class Packed(nn.Module):
    """A projection without `in_features` whose weight is packed, as some quantisation libraries have it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("qweight", torch.zeros(3, 7, dtype=torch.int32))


def test_a_projection_that_does_not_say_its_width(tiny: Any) -> None:
    """Where the projection keeps its width to itself, the config's heads times head_dim is it."""
    model = tiny("qwen3")
    model.model.layers[2].self_attn.o_proj = Packed()
    assert locate(model, "heads", [2])[0].width == 4 * 8


def test_pruned_heads(tiny: Any) -> None:
    """A projection that reads fewer features than the config says is believed."""
    model = tiny("llama")
    model.model.layers[0].self_attn.o_proj = nn.Linear(24, 24)
    assert [host.width for host in locate(model, "heads")] == [24, 32, 32]
