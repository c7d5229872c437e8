"""Methods by name: what can be changed of them, and what is said when something cannot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tiny_language import tiny_model
from trimtab import JointConfig
from trimtab.methods import METHODS, attach, get_method


def test_overrides_reach_the_adapter_and_the_rule() -> None:
    """One of each; the label says what differs from the named method."""
    method = get_method("post-block", r=4, site="mlp", learning_rate=1e-4)
    assert method.learning_rate == 1e-4
    assert method.label == "post-block(r=4, site=mlp)"
    assert get_method("post-block").label == get_method("post-block", r=8).label == "post-block"
    config = method.peft_config(tiny_model())
    assert (config.r, config.site) == (4, "mlp")
    assert replace(method, adapter={"r": 2}).label == "post-block(r=2)"


@pytest.mark.parametrize("change", [{"lora": {"r": 4}}, {"lora.r": 4}], ids=["nested", "dotted"])
def test_overrides_reach_the_lora_half(change: dict[str, Any]) -> None:
    """An option of an option changes that one alone, however it is written; the row stays as it was."""
    before = METHODS["joint"].to_dict()
    method = get_method("joint", r=3, **change)
    assert method.label == "joint(r=3, lora.r=4)"
    assert method.adapter == {**before["adapter"], "r": 3, "lora": {**before["adapter"]["lora"], "r": 4}}
    assert METHODS["joint"].to_dict() == before
    config = method.peft_config(tiny_model())
    assert isinstance(config, JointConfig)
    assert (config.r, config.lora_half.r, config.lora_half.lora_alpha) == (3, 4, 8)
    shapes = {name: tuple(p.shape) for name, p in attach(tiny_model(), method).named_parameters() if p.requires_grad}
    assert {shape[0] for name, shape in shapes.items() if ".lora_A" in name} == {4}
    assert {shape[0] for name, shape in shapes.items() if "down" in name and "lora" not in name} == {3}


def test_an_option_that_is_a_mapping_can_be_given_whole() -> None:
    """PEFT's rank_pattern has module names as keys, dots included."""
    method = get_method("lora", rank_pattern={"layers.0.q_proj": 2})
    assert method.adapter["rank_pattern"] == {"layers.0.q_proj": 2}


def test_a_method_can_be_built_on_another_row() -> None:
    """Any choice of a row can be another: LoReFT after the block, in two layers, on generated tokens."""
    method = get_method("post-block", intervention="loreft", layers=[0, 2], positions="generated")
    config = method.peft_config(tiny_model())
    assert (config.intervention, config.layers, config.positions) == ("loreft", [0, 2], "generated")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("post-blok", {}, "Did you mean 'post-block'"),
        ("joint-ort", {}, "Did you mean 'joint-orth'"),
        ("post-block", {"postions": "all"}, "Did you mean 'positions'"),
        ("post-block", {"learnin_rate": 1.0}, "Did you mean 'learning_rate'"),
        ("post-block", {"site": "blok"}, "Did you mean 'block'"),
        ("reft", {"intervention": "loreftt"}, "Did you mean 'loreft'"),
        ("post-block", {"r": 0}, "r=0"),
        ("post-block", {"learning_rate": -1.0}, "learning_rate=-1.0"),
        ("lora", {"schedule": "cosin"}, "Did you mean 'cosine'"),
        ("lora", {"warmup_ratio": 1.0}, "warmup_ratio=1.0"),
        ("sft", {"weight_decay": -0.1}, "weight_decay=-0.1"),
        ("post-block", {"rate_factors": {"down": 0.0}}, r"rate_factors\['down'\]=0.0 must be positive"),
        ("post-block", {"rate_factor": {"down": 2.0}}, "Did you mean 'rate_factors'"),
        ("sft", {"r": 8}, "Unknown setting of method 'sft'"),
        ("joint", {"constraint": "ortogonal"}, "Did you mean 'orthogonal'"),
        ("joint", {"lora_alpha": 16}, "Did you mean 'lora.lora_alpha'"),
        ("joint", {"lora": {"lora_alfa": 16}}, "Did you mean 'lora.lora_alpha'"),
        ("joint", {"lora.lora_alfa": 16}, "Did you mean 'lora.lora_alpha'"),
        ("joint", {"lora": 8}, "lora=8 of method 'joint' must be a mapping"),
    ],
)
def test_mistakes_are_named(name: str, options: dict[str, Any], message: str) -> None:
    """With the nearest valid choice, before a model is loaded."""
    with pytest.raises(ValueError, match=message):
        get_method(name, **options)
