"""target_modules: steering the output of any named module, in encoders and in plain networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM

from tiny_models import assert_same, draw_adapters, fingerprint, steering_layers, tiny_model, token_ids
from trimtab import SteeringConfig


class Network(nn.Module):
    """A perceptron with named layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 10)
        self.norm = nn.LayerNorm(10)
        self.second = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.norm(torch.relu(self.first(x))))


X = torch.linspace(-1, 1, 18).view(3, 6)


def adapt(network: nn.Module, **options: Any) -> Any:
    """The network with a random adapter."""
    model = get_peft_model(network, SteeringConfig(**({"r": 2} | options))).eval()
    draw_adapters(model)
    return model


@pytest.mark.parametrize("targets", [["first"], ["norm", "second"], r"first|second", "all-linear"])
def test_a_plain_network(targets: Any, tmp_path: Any) -> None:
    """Names, suffixes, a regular expression or all-linear: a no-op at the start, steered, saved, taken off."""
    torch.manual_seed(1)
    network = Network().eval()
    plain, before = network(X), fingerprint(network, trainable=False)
    model = get_peft_model(network, SteeringConfig(r=2, target_modules=targets)).eval()
    assert torch.equal(model(X), plain)
    draw_adapters(model)
    steered = model(X)
    assert (steered - plain).abs().max() > 1e-3
    with model.disable_adapter():
        assert torch.equal(model(X), plain)
    model.save_pretrained(tmp_path)
    model.unload()
    assert_same(before, fingerprint(network, trainable=False))
    assert torch.equal(PeftModel.from_pretrained(network, tmp_path)(X), steered)


def test_the_shift_of_a_module() -> None:
    """The module's output z becomes z + W_up W_down z."""
    torch.manual_seed(1)
    network = Network().eval()
    plain = network(X)
    model = adapt(network, target_modules=["second"])
    factor = steering_layers(model)[0].steering_interventions["default"]
    assert_close(model(X), plain + plain @ (factor.up @ factor.down).T)


def test_exclude_modules() -> None:
    """exclude_modules leaves out what target_modules would have matched."""
    model = adapt(tiny_model("llama"), target_modules=["mlp"], exclude_modules=["model.layers.1.mlp"])
    assert [
        layer.host is model.get_base_model().model.layers[i].mlp
        for i, layer in zip((0, 2), steering_layers(model), strict=True)
    ]


def test_a_decoder_layer_by_name_is_the_block() -> None:
    """Naming the decoder layers gives the adapter of the site `block`, number for number."""
    ids = token_ids(2, 8)
    by_site, by_name = adapt(tiny_model("llama")), adapt(tiny_model("llama"), target_modules=r"model\.layers\.\d+")
    assert torch.equal(by_site(input_ids=ids).logits, by_name(input_ids=ids).logits)


@pytest.mark.parametrize("name", ["bert", "vit"])
def test_encoders(name: str) -> None:
    """An encoder of text or of images is steered at its layers' outputs."""
    sizes = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"vocab_size": 61} if name == "bert" else {"image_size": 8, "patch_size": 4}
    base = AutoModel.from_config(AutoConfig.for_model(name, **sizes)).eval()
    inputs = {"input_ids": token_ids(2, 8)} if name == "bert" else {"pixel_values": torch.randn(2, 3, 8, 8)}
    plain = base(**inputs).last_hidden_state
    with pytest.raises(ValueError, match="target_modules"):
        get_peft_model(base, SteeringConfig(r=2, site="heads" if name == "bert" else "mlp"))
    targets = r".*layers?\.\d+\.(output\.dense|mlp\.fc2)"
    model = get_peft_model(base, SteeringConfig(r=2, target_modules=targets)).eval()
    assert len(steering_layers(model)) == 2
    assert torch.equal(model(**inputs).last_hidden_state, plain)
    draw_adapters(model)
    model(**inputs).last_hidden_state.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    assert not torch.equal(model(**inputs).last_hidden_state, plain)


def test_an_encoder_and_its_decoder() -> None:
    """A model with both is refused by site and steered by name, in generation too."""
    config = AutoConfig.for_model(
        "t5", vocab_size=61, d_model=24, d_kv=6, d_ff=32, num_layers=2, num_heads=4, decoder_start_token_id=0
    )
    base = AutoModelForSeq2SeqLM.from_config(config).eval()
    with pytest.raises(ValueError, match="target_modules"):
        get_peft_model(base, SteeringConfig(r=2))
    ids = token_ids(2, 6)
    plain = base.generate(input_ids=ids, max_new_tokens=4, do_sample=False)
    model = get_peft_model(base, SteeringConfig(r=2, target_modules=["wo"], task_type="SEQ_2_SEQ_LM")).eval()
    assert torch.equal(model.generate(input_ids=ids, max_new_tokens=4, do_sample=False), plain)
    draw_adapters(model, scale=3.0)
    steered = [
        model.generate(input_ids=ids, max_new_tokens=4, do_sample=False, use_cache=use_cache)
        for use_cache in (True, False)
    ]
    assert torch.equal(*steered)


def test_an_output_without_hidden_states() -> None:
    """A module that returns neither a tensor nor a tuple of tensors cannot be steered, and the error names it."""

    class Table(nn.Module):
        out_features = 6

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"x": x}

    model = adapt(nn.Sequential(Table()), target_modules=["0"])
    with pytest.raises(TypeError, match="output of Table is a dict"):
        model(X)


def test_a_name_that_is_taken() -> None:
    """A module that has a child called like the steering layer is refused, not overwritten."""
    network = Network()
    network.first.add_module("steering", nn.Identity())
    with pytest.raises(ValueError, match=r"'first'.*something of its own that is called 'steering'"):
        get_peft_model(network, SteeringConfig(r=2, target_modules=["second", "first"]))
    assert steering_layers(network) == []
