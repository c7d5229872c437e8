"""Steering as a PEFT method; importing this package registers it."""

from trimtab.tuners.peft_types import register
from trimtab.tuners.steering.config import SteeringConfig
from trimtab.tuners.steering.gates import HeadGates, head_gates
from trimtab.tuners.steering.gradient_start import copy_start, start_from_gradient
from trimtab.tuners.steering.layer import SteeringLayer
from trimtab.tuners.steering.lofit import head_norms, select_heads
from trimtab.tuners.steering.model import SteeringModel
from trimtab.tuners.steering.penalty import PenaltyStep, has_penalty, penalty, set_penalty_step
from trimtab.tuners.steering.prompts import prompt_lengths
from trimtab.tuners.steering.rows import adapter_rows
from trimtab.tuners.steering.strength import get_strengths, set_strength, strength

__all__ = [
    "HeadGates",
    "PenaltyStep",
    "SteeringConfig",
    "SteeringLayer",
    "SteeringModel",
    "adapter_rows",
    "copy_start",
    "get_strengths",
    "has_penalty",
    "head_gates",
    "head_norms",
    "penalty",
    "prompt_lengths",
    "select_heads",
    "set_penalty_step",
    "set_strength",
    "start_from_gradient",
    "strength",
]

register("steering", SteeringConfig, SteeringModel)
