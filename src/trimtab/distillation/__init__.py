"""A fine-tuned model becomes a steering adapter, in closed form: no labels, no training.

base, tuned = load_model("..."), load_model("...")
adapter, result = distill(base, tuned, texts, SteeringConfig(...), DistillationSettings())
"""

from trimtab.distillation.compatibility import require_same_tokens, twin
from trimtab.distillation.distill import distill
from trimtab.distillation.divergence import Divergence, divergence
from trimtab.distillation.result import DistillationResult
from trimtab.distillation.settings import DistillationSettings
from trimtab.distillation.texts import answered, read_prompts

__all__ = [
    "DistillationResult",
    "DistillationSettings",
    "Divergence",
    "answered",
    "distill",
    "divergence",
    "read_prompts",
    "require_same_tokens",
    "twin",
]
