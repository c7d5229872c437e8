"""STEERING as a member of PEFT's enum of methods."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys

import pytest
from peft import PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

from trimtab import SteeringConfig, SteeringModel
from trimtab.tuners.peft_types import register


def test_steering_is_a_member() -> None:
    """By value, by name, in iteration and in `in`, one and the same member, a str like PEFT's own."""
    member = PeftType("STEERING")
    assert member is PeftType["STEERING"] is PeftType.STEERING
    assert member in list(PeftType)
    assert "STEERING" in PeftType.__members__
    assert member.value == member.name == member == "STEERING"
    assert json.dumps(member) == '"STEERING"'
    assert len({m.value for m in PeftType}) == len(list(PeftType))


def test_copies_are_the_member() -> None:
    """Pickle and deepcopy give the member itself."""
    member = PeftType("STEERING")
    assert pickle.loads(pickle.dumps(member)) is member  # noqa: S301
    assert copy.deepcopy(member) is member
    assert copy.deepcopy({"t": member})["t"] is member


def test_peft_knows_the_classes() -> None:
    """PEFT's tables map the method to its configuration, its model and its prefix."""
    member = PeftType("STEERING")
    assert PEFT_TYPE_TO_CONFIG_MAPPING[member] is SteeringConfig
    assert PEFT_TYPE_TO_TUNER_MAPPING[member] is SteeringModel
    assert PEFT_TYPE_TO_PREFIX_MAPPING[member] == "steering_"


def test_registering_twice_changes_nothing() -> None:
    """A second registration keeps the member, the order and the tables."""
    members, tables = list(PeftType), dict(PEFT_TYPE_TO_CONFIG_MAPPING)
    register("steering", SteeringConfig, SteeringModel)
    assert list(PeftType) == members
    assert tables == PEFT_TYPE_TO_CONFIG_MAPPING


def test_pefts_own_methods_are_as_before() -> None:
    """LoRA is still found by value, and an unknown method is still an error."""
    assert PeftType("LORA") is PeftType.LORA
    with pytest.raises(ValueError, match="STEERINGS"):
        PeftType("STEERINGS")


def test_without_the_import_peft_does_not_know_it() -> None:
    """What the model card warns of: without `import trimtab` the method is unknown, afterwards known."""
    code = (
        "import peft\n"
        "assert 'STEERING' not in peft.PeftType.__members__\n"
        "import trimtab\n"
        "assert peft.PeftType('STEERING') in peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
