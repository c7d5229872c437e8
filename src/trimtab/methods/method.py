"""One row of the table: what is trained and by what rule."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from peft import LoraConfig, PeftConfig
from transformers import PreTrainedModel

from trimtab.interventions import get_intervention
from trimtab.methods.configurations import Family, configuration
from trimtab.registry import check_choice
from trimtab.tuners.joint import JointConfig
from trimtab.tuners.steering import SteeringConfig

Schedule = Literal["constant", "cosine"]

# Options of a steering configuration that have a column of their own.
_COLUMNS = ("site", "layers", "positions", "intervention", "lora", "constraint")
_NONE = "-"


@dataclass(frozen=True)
class Method:
    """What is trained and by what rule; the optimiser is AdamW in every method (paper, appendix F.5).

    Args:
        name: the name of the row.
        description: one line for a table.
        family: "steering" (a SteeringConfig), "lora" (a LoraConfig), "joint" (a JointConfig) or "full" (every
            weight).
        learning_rate: the peak rate of AdamW.
        adapter: options of that configuration; those of the LoRA half of a joint method under "lora".
        learning_rates: the rates among which validation data chooses, in ascending order.
        schedule: "constant" or "cosine" (to zero).
        warmup_ratio: share of the steps over which the rate climbs from zero.
        weight_decay: AdamW's.
        rate_factors: factors on the learning rate of single parameters, by the part of their name that they share:
            {"down": 2.0} doubles that of every W_down, as LoRA+ does for LoRA's B with {"lora_B": 16.0}.
        row: the adapter options of the named row, from which the label tells what differs; None: `adapter`.

    Raises:
        ValueError: a rule that cannot be followed.
    """

    name: str
    description: str
    family: Family
    learning_rate: float
    adapter: Mapping[str, Any] = field(default_factory=dict)
    learning_rates: tuple[float, ...] = ()
    schedule: Schedule = "constant"
    warmup_ratio: float = 0.0
    weight_decay: float = 0.0
    rate_factors: Mapping[str, float] = field(default_factory=dict)
    row: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Refuse a rule that cannot be followed."""
        if self.row is None:
            object.__setattr__(self, "row", self.adapter)  # a copy with other options knows where it comes from
        check_choice("family", self.family, get_args(Family))
        check_choice("schedule", self.schedule, get_args(Schedule))
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate={self.learning_rate!r} must be positive.")
        if not 0 <= self.warmup_ratio < 1:
            raise ValueError(f"warmup_ratio={self.warmup_ratio!r} must be at least 0 and less than 1.")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay={self.weight_decay!r} must not be negative.")
        for name, factor in self.rate_factors.items():
            if not 0 < factor < math.inf:
                raise ValueError(f"rate_factors[{name!r}]={factor!r} must be positive and finite.")

    @property
    def label(self) -> str:
        """The name, followed by the adapter options that differ from the named row's."""
        named = dict(_flat(self.row or {}))
        changed = (pair for pair in _flat(self.adapter) if pair not in named.items())
        changes = ", ".join(f"{key}={value}" for key, value in changed)
        return f"{self.name}({changes})" if changes else self.name

    def peft_config(self, model: PreTrainedModel) -> PeftConfig | None:
        """The PEFT configuration for `model`; None for full fine-tuning."""
        return configuration(self.family, self.adapter, {name for name, _ in model.named_modules()})

    def to_dict(self) -> dict[str, Any]:
        """Every setting that a run depends on, as plain values for a recipe."""
        recipe = {
            "name": self.name,
            "description": self.description,
            "family": self.family,
            "learning_rate": self.learning_rate,
            "adapter": plain(self.adapter),
            "schedule": self.schedule,
            "warmup_ratio": self.warmup_ratio,
            "weight_decay": self.weight_decay,
        }
        return {**recipe, "rate_factors": dict(self.rate_factors)} if self.rate_factors else recipe

    @property
    def starts_as_base(self) -> bool:
        """Whether a fresh one is the base model, bit for bit; LoReFT and DiReFT are published with another start."""
        steering = self._steering
        return steering is None or get_intervention(steering.intervention).starts_as_noop

    @property
    def shift_parameters(self) -> frozenset[str]:
        """The names that the parameters of a steering method's shift have, those included that an option leaves out."""
        if self._steering is None:
            return frozenset()
        intervention = get_intervention(self._steering.intervention)
        return frozenset((*intervention.written, *intervention.read))

    @property
    def where(self) -> str:
        """The column of the site, and the layers where they are not all."""
        steering = self._steering
        if steering is None:
            return _NONE
        place = steering.site if steering.target_modules is None else "modules"
        return place if steering.layers is None else f"{place}, layers {', '.join(map(str, steering.layers))}"

    @property
    def what(self) -> str:
        """The column of the intervention and its options."""
        steering = self._steering
        if steering is None:
            return _NONE
        options = [_option(key, value) for key, value in self.adapter.items() if key not in _COLUMNS]
        return ", ".join([steering.intervention, *options])

    @property
    def positions(self) -> str:
        """The column of the positions."""
        steering = self._steering
        return _NONE if steering is None else steering.positions

    @property
    def weights(self) -> str:
        """The column of the weights that are trained, besides the intervention."""
        if self.family == "full":
            return "all"
        config = self._config
        if isinstance(config, JointConfig):
            return f"{_lora(config.lora_half)}, constraint={config.constraint}"
        return _lora(config) if isinstance(config, LoraConfig) else _NONE

    @property
    def rates(self) -> str:
        """The column of the learning rates, the default in brackets, and of the factors on them."""
        shown = (f"[{short(rate)}]" if rate == self.learning_rate else short(rate) for rate in self.learning_rates)
        factors = ", ".join(f"{name} x {factor:g}" for name, factor in self.rate_factors.items())
        return " ".join(shown) + (f"; {factors}" if factors else "")

    @property
    def _config(self) -> PeftConfig | None:
        return configuration(self.family, self.adapter)

    @property
    def _steering(self) -> SteeringConfig | None:
        config = self._config
        return config if isinstance(config, SteeringConfig) else None


def plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` with a dictionary in place of every mapping."""
    return {key: plain(value) if isinstance(value, Mapping) else value for key, value in options.items()}


def _flat(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every option by its dotted name."""
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def short(rate: float) -> str:
    """A learning rate as one writes it: 0.0015 is 1.5e-3."""
    mantissa, _, exponent = f"{rate:e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _option(key: str, value: Any) -> str:
    return key if value is True else f"{key}={value}"


def _lora(config: LoraConfig) -> str:
    return f"{'DoRA' if config.use_dora else 'LoRA'}, r={config.r}"
