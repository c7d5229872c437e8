"""Steering as a PEFT method; importing this package registers it."""

from trimtab.tuners.peft_types import register
from trimtab.tuners.steering.config import SteeringConfig
from trimtab.tuners.steering.layer import SteeringLayer
from trimtab.tuners.steering.model import SteeringModel
from trimtab.tuners.steering.prompts import prompt_lengths
from trimtab.tuners.steering.strength import get_strengths, set_strength, strength

__all__ = [
    "SteeringConfig",
    "SteeringLayer",
    "SteeringModel",
    "get_strengths",
    "prompt_lengths",
    "set_strength",
    "strength",
]

register("steering", SteeringConfig, SteeringModel)
