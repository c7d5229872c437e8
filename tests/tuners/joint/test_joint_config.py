"""JointConfig: what it refuses, and that it survives its file."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from peft import IA3Config, LoraConfig, PeftConfig
from peft.utils.peft_types import PeftType

import trimtab
from trimtab import JointConfig

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "constraint": ({"constraint": "orthogonl"}, "Did you mean 'orthogonal'"),
    "weight": ({"constrained_to": ["down_prj"]}, "Did you mean 'down_proj'"),
    "no list": ({"constrained_to": "down_proj"}, r"must be a list, such as \['down_proj'\]"),
    "empty": ({"constrained_to": []}, "at least one weight"),
    "twice": ({"constrained_to": ["o_proj", "o_proj"]}, "each one once"),
    "tolerance": ({"rank_tolerance": 1e-9}, "from 1e-6 to 1"),
    "mlp_input": ({"site": "mlp_input"}, "needs one of the sites block, mlp, attention, not site='mlp_input'"),
    "heads": ({"site": "heads"}, "not site='heads'"),
    "modules": ({"target_modules": ["lm_head"]}, "not target_modules"),
    "input of a vector": ({"intervention": "vector", "constraint": "input"}, "use one of .*low_rank.*, or"),
    "steering's": ({"r": 0}, "rank r=0"),
    "another method": ({"lora": IA3Config()}, "not PeftType.IA3"),
    "no config": ({"lora": "all-linear"}, "not str"),
    "unknown option": ({"lora": {"rank": 8}}, "Unknown option of lora 'rank'"),
    "bias": ({"lora": LoraConfig(bias="all")}, "lora.bias='all'"),
    "modules_to_save": ({"lora": LoraConfig(modules_to_save=["lm_head"])}, "Give it to JointConfig itself"),
    "tokens": ({"lora": LoraConfig(trainable_token_indices=[1])}, "lora.trainable_token_indices does not belong"),
    "dora": ({"lora": LoraConfig(use_dora=True)}, "plain LoRA.*lora.use_dora"),
    "lora_bias": ({"lora": LoraConfig(lora_bias=True)}, "lora.lora_bias"),
    "pissa": ({"lora": LoraConfig(init_lora_weights="pissa")}, "'pissa' starts from the base weights"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_it_refuses(case: str) -> None:
    """Each with an error that names the thing, before there is a model."""
    options, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        JointConfig(**options)


@pytest.mark.parametrize("options", [{"site": "heads"}, {"site": "mlp_input"}, {"target_modules": ["mlp"]}])
def test_without_a_constraint_every_site_goes(options: dict[str, Any]) -> None:
    """What cannot be constrained can be trained jointly all the same."""
    assert JointConfig(constraint="none", **options).constraint == "none"


def test_through_its_file(tmp_path: Path) -> None:
    """The file is plain JSON that holds both halves, and gives an equal configuration of the same type."""
    half = LoraConfig(r=2, target_modules=["down_proj", "o_proj"], rank_pattern={"o_proj": 3}, lora_dropout=0.1)
    config = JointConfig(r=5, site="mlp", lora=half, constrained_to=["o_proj"], rank_tolerance=1e-3, strength=0.5)
    config.save_pretrained(str(tmp_path))
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert written["peft_type"] == "JOINT"
    assert written["lora"]["target_modules"] == ["down_proj", "o_proj"]
    for loaded in (PeftConfig.from_pretrained(str(tmp_path)), JointConfig.from_pretrained(str(tmp_path))):
        assert type(loaded) is JointConfig
        assert loaded.to_dict() == config.to_dict()
        assert isinstance(loaded.lora, LoraConfig)
        assert loaded.lora.rank_pattern == {"o_proj": 3}
    with pytest.warns(UserWarning, match="of_tomorrow"):  # a newer PEFT's LoRA, with an option that is not known here
        later = JointConfig(lora={**written["lora"], "peft_version": "99.0.0", "of_tomorrow": 1})
    assert later.lora_half.r == 2


def test_the_default_lora_half() -> None:
    """LoRA as the method "lora" has it, on all matrices."""
    half = JointConfig().lora_half
    assert (half.r, half.lora_alpha, half.target_modules) == (8, 8, "all-linear")


def test_the_callers_lora_config_is_left_alone() -> None:
    """PEFT fills in fields of a configuration; one LoraConfig may serve several joint ones."""
    half = LoraConfig(target_modules="all-linear")
    before = copy.deepcopy(half)
    config = JointConfig(lora=half)
    config.lora_half.target_modules = {"x"}
    assert half == before


def test_the_type_is_registered() -> None:
    """`import trimtab` makes JOINT a method of PEFT, whose table of prefixes does not know it (see `register`)."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

    joint = PeftType("JOINT")
    assert PEFT_TYPE_TO_CONFIG_MAPPING[joint] is trimtab.JointConfig
    assert PEFT_TYPE_TO_TUNER_MAPPING[joint] is trimtab.JointModel
    assert joint not in PEFT_TYPE_TO_PREFIX_MAPPING
