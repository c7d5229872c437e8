"""trimtab: adapt language models by steering their residual stream.

Importing it makes `SteeringConfig` a method of PEFT:

    from peft import get_peft_model
    from trimtab import SteeringConfig

    model = get_peft_model(model, SteeringConfig(r=8))
"""

from trimtab.tuners.steering import (
    SteeringConfig,
    SteeringModel,
    get_strengths,
    prompt_lengths,
    set_strength,
    strength,
)

__version__ = "0.1.0"

__all__ = [
    "SteeringConfig",
    "SteeringModel",
    "__version__",
    "get_strengths",
    "prompt_lengths",
    "set_strength",
    "strength",
]
