"""What a user says of a joint adapter: a steering configuration, a LoRA configuration, and what keeps them apart."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass, field
from typing import Any

from peft import LoraConfig, PeftConfig
from peft.utils.peft_types import PeftType

from trimtab.interventions import get_intervention, intervention_names
from trimtab.registry import check_choice, unknown
from trimtab.tuners.joint.stream_weights import ROLES
from trimtab.tuners.steering.config import FROM_GRADIENT, SteeringConfig
from trimtab.tuners.steering.options import strange_options, with_known_options

CONSTRAINTS = {"orthogonal": "written", "none": None, "input": "read"}
"""The choices, and which side of an intervention each acts on (`Intervention.written`, `Intervention.read`)."""

CONSTRAINED_SITES = ("block", "mlp", "attention")
"""The sites whose tensor is the stream, or is added to it: col(B) and the shift live in the same space."""

STARTS = (True, False, None, "gaussian", "orthogonal")
"""LoRA's starts that leave the base weights as they are."""


@with_known_options
@dataclass
class JointConfig(SteeringConfig):
    """LoRA on the weights and steering of the stream, trained together as one adapter (paper, sections 4 and 5.2).

    All fields of `SteeringConfig` describe the steering half. With the constraint "orthogonal" it writes W_up only
    outside of what LoRA writes in the same layer, at every forward pass:

        effective W_up = (I - Q Q^T) W_up,    Q an orthonormal basis of col(B)

    where B is the LoRA factor of the MLP's writing projection, W + (alpha / r) B A. See docs/joint.md.

    Args:
        lora: the LoRA half, a `peft.LoraConfig` (or its dictionary); None is r = 8, alpha = 8 on "all-linear". Options
            that concern the adapter as a whole (`modules_to_save`) are given outside of it.
        constraint: `orthogonal` (the paper's text), `none` (naive joint training), or `input` (what the paper's
            public code projects, there every 100 steps: W_down (I - Q Q^T), the side that reads).
        constrained_to: whose B counts, by the names of these weights in Llama: `down_proj` (what the MLP writes with)
            and `o_proj` (attention). Other families' weights are found by what they do.
        rank_tolerance: directions of B with a singular value of at most this share of its largest are not in Q.

    Raises:
        ValueError: an unknown name (with the nearest one), a value out of range, or options that exclude each other.
    """

    lora: LoraConfig | dict[str, Any] | None = field(default=None, metadata={"help": "The LoRA half."})
    constraint: str = field(default="orthogonal", metadata={"help": "orthogonal, none or input."})
    constrained_to: list[str] = field(
        default_factory=lambda: ["down_proj"], metadata={"help": "Whose LoRA B counts: down_proj, o_proj."}
    )
    rank_tolerance: float = field(default=1e-5, metadata={"help": "Relative to the largest singular value of B."})

    def __post_init__(self) -> None:
        """Check every field, those of LoRA included."""
        super().__post_init__()
        self.peft_type = PeftType["JOINT"]
        self.lora = _own_lora(self.lora)
        check_choice("constraint", self.constraint, CONSTRAINTS)
        self._check_constrained_to()
        tolerance = self.rank_tolerance
        if isinstance(tolerance, bool) or not isinstance(tolerance, float) or not 1e-6 <= tolerance < 1:
            raise ValueError(f"rank_tolerance={tolerance!r} must be a number from 1e-6 to 1.")
        side = CONSTRAINTS[self.constraint]
        if side is None:
            return
        if side == "read" and self.init_weights == FROM_GRADIENT:
            raise ValueError("constraint='input' changes what reads: it cannot start from the gradient.")
        if self.target_modules is not None or self.site not in CONSTRAINED_SITES:
            where = "target_modules" if self.target_modules is not None else f"site={self.site!r}"
            raise ValueError(
                f"constraint={self.constraint!r} compares what LoRA writes to the stream with a shift of the stream: "
                f"it needs one of the sites {', '.join(CONSTRAINED_SITES)}, not {where}. Use constraint='none' there."
            )
        if not getattr(get_intervention(self.intervention), side):
            able = [name for name in intervention_names() if getattr(get_intervention(name), side)]
            raise ValueError(
                f"constraint={self.constraint!r} cannot be put on the intervention {self.intervention!r}: use one of "
                f"{', '.join(able)}, or constraint='none'."
            )

    def _check_constrained_to(self) -> None:
        if isinstance(self.constrained_to, str):
            raise ValueError(f"constrained_to={self.constrained_to!r} must be a list, such as ['down_proj'].")
        self.constrained_to = list(self.constrained_to)
        if not self.constrained_to or len(set(self.constrained_to)) < len(self.constrained_to):
            raise ValueError(f"constrained_to={self.constrained_to!r} must name at least one weight, each one once.")
        for name in self.constrained_to:
            check_choice("weight in constrained_to", name, ROLES)

    @property
    def lora_half(self) -> LoraConfig:
        """`lora`, which is a `LoraConfig` from `__post_init__` on."""
        if not isinstance(self.lora, LoraConfig):
            raise TypeError(f"lora={self.lora!r} was replaced by something that is no LoraConfig.")
        return self.lora

    def to_dict(self) -> dict[str, Any]:
        """As PEFT's; the LoRA half is a dictionary of plain values in it."""
        lora = self.lora_half.to_dict()
        plain = {name: sorted(value) if isinstance(value, set) else value for name, value in lora.items()}
        return {**super().to_dict(), "lora": plain}


def _own_lora(lora: LoraConfig | dict[str, Any] | None) -> LoraConfig:
    """A LoraConfig of the adapter's own (PEFT fills in fields), after a check.

    Raises:
        ValueError: it asks for something that a joint adapter does not do.
    """
    if lora is None:
        lora = LoraConfig(r=8, lora_alpha=8, target_modules="all-linear")
    elif isinstance(lora, dict):
        found = {field.name for field in dataclasses.fields(LoraConfig)}
        for name in strange_options(lora, found):
            raise unknown("option of lora", name, found)
        lora = LoraConfig.from_peft_type(**{"peft_type": "LORA", **lora})
    if type(lora) is not LoraConfig:
        kind = lora.peft_type if isinstance(lora, PeftConfig) else type(lora).__name__
        raise ValueError(f"lora must be a peft.LoraConfig or a dictionary of its options, not {kind}.")
    if lora.bias != "none":
        raise ValueError(f"lora.bias={lora.bias!r} trains biases of the base, so disabling would not restore it.")
    for name in ("modules_to_save", "trainable_token_indices", "layer_replication"):
        if getattr(lora, name, None):
            hint = " Give it to JointConfig itself." if name == "modules_to_save" else ""
            raise ValueError(f"lora.{name} does not belong to the LoRA half of a joint adapter.{hint}")
    if lora.init_lora_weights not in STARTS:
        raise ValueError(
            f"lora.init_lora_weights={lora.init_lora_weights!r} starts from the base weights; a joint adapter takes "
            f"one of {', '.join(map(repr, STARTS))}."
        )
    variants = [f.name for f in dataclasses.fields(lora) if f.metadata.get("is_lora_variant") and getattr(lora, f.name)]
    for name in [*variants, *(["lora_bias"] if lora.lora_bias else [])]:
        raise ValueError(f"A joint adapter takes plain LoRA, whose update is B A: lora.{name} is not supported.")
    return copy.deepcopy(lora)
