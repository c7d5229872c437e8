"""The methods by name: which parameters are trained, and with what rule.

A steering method is a row that picks one of each choice: site, intervention, positions, layers. Any choice
can be overridden, so a method that has no name is `get_method("post-block", site="attention", r=4)`.

Rules of the paper (appendix F.5): AdamW for all; a cosine schedule with warm-up for full fine-tuning and
LoRA; a constant rate without warm-up and without weight decay for steering. Learning rates are starting
points, meant to be chosen on validation data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

import torch
from peft import LoraConfig, PeftConfig, PeftModel, TaskType, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedModel

from trimtab.registry import check_choice, unknown
from trimtab.tuners.steering import SteeringConfig

Family = Literal["steering", "lora", "full"]
Schedule = Literal["constant", "cosine"]

# The projections that the paper's LoRA adapts; families that name theirs otherwise get PEFT's "all-linear".
LORA_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_CONFIGS: dict[str, type[PeftConfig]] = {"steering": SteeringConfig, "lora": LoraConfig}


@dataclass(frozen=True)
class Method:
    """What is trained and by what rule.

    Args:
        name: the name of the row.
        description: one line for a table.
        family: "steering" (a SteeringConfig), "lora" (a LoraConfig) or "full" (every weight).
        adapter: options of that configuration.
        learning_rate: the peak rate of AdamW.
        schedule: "constant" or "cosine" (to zero).
        warmup_ratio: share of the steps over which the rate climbs from zero.
        weight_decay: AdamW's.
    """

    name: str
    description: str
    family: Family
    learning_rate: float
    adapter: Mapping[str, Any] = field(default_factory=dict)
    schedule: Schedule = "constant"
    warmup_ratio: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a rule that cannot be followed."""
        check_choice("schedule", self.schedule, get_args(Schedule))
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate={self.learning_rate!r} must be positive.")
        if not 0 <= self.warmup_ratio < 1:
            raise ValueError(f"warmup_ratio={self.warmup_ratio!r} must be at least 0 and less than 1.")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay={self.weight_decay!r} must not be negative.")

    @property
    def label(self) -> str:
        """The name, followed by the adapter options that differ from the named row's."""
        named = METHODS[self.name].adapter
        changed = (f"{key}={value}" for key, value in self.adapter.items() if named.get(key) != value)
        changes = ", ".join(changed)
        return f"{self.name}({changes})" if changes else self.name

    def peft_config(self, model: PreTrainedModel) -> PeftConfig | None:
        """The PEFT configuration for `model`; None for full fine-tuning."""
        if self.family == "full":
            return None
        options = dict(self.adapter)
        if self.family == "lora" and "target_modules" not in options:
            present = {name.rpartition(".")[2] for name, _ in model.named_modules()}
            options["target_modules"] = list(LORA_PROJECTIONS) if present.issuperset(LORA_PROJECTIONS) else "all-linear"
        return _CONFIGS[self.family](task_type=TaskType.CAUSAL_LM, **options)

    def to_dict(self) -> dict[str, Any]:
        """Every setting, as plain values for a recipe."""
        return {**asdict(self), "adapter": dict(self.adapter)}


def _steering(name: str, description: str, learning_rate: float, **adapter: Any) -> Method:
    return Method(name, description, "steering", learning_rate, adapter)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        _steering("post-block", "linear, rank 8, on the stream after every block (the paper's)", 2e-3, r=8),
        _steering("post-block-nonlinear", "the same with a SiLU inside", 2e-3, r=8, activation="silu"),
        _steering("1-vec", "one vector after every block", 5e-3, intervention="vector"),
        Method(
            "post-block-normalized",
            "post-block that reads h / rms(h), with a bias (ours)",
            "steering",
            2e-3,
            {"r": 8, "normalize": True, "use_bias": True},
            schedule="cosine",
            warmup_ratio=0.05,
        ),
        _steering("post-mlp", "linear, rank 8, on what the MLP adds to the stream", 2e-3, r=8, site="mlp"),
        _steering("pre-mlp", "linear, rank 8, on what the MLP reads", 2e-3, r=8, site="mlp_input"),
        Method(
            "lora",
            "LoRA, rank 8, on the seven projections of every block",
            "lora",
            5e-4,
            {"r": 8, "lora_alpha": 8, "lora_dropout": 0.0},
            schedule="cosine",
            warmup_ratio=0.03,
        ),
        Method("sft", "full fine-tuning: every weight", "full", 2e-5, schedule="cosine", warmup_ratio=0.03),
    )
}


def get_method(name: str, **overrides: Any) -> Method:
    """The method called `name`, with some of its settings changed.

    Args:
        name: one of `METHODS`.
        overrides: a learning rule's setting (learning_rate, schedule, warmup_ratio, weight_decay) or an
            option of the adapter's configuration (r, site, positions, ...).

    Raises:
        ValueError: an unknown name or setting (with the nearest one), or a value out of range.
    """
    row = METHODS[check_choice("method", name, METHODS)]
    rules = {"learning_rate", "schedule", "warmup_ratio", "weight_decay"}
    config = _CONFIGS.get(row.family)
    options = {each.name for each in fields(config) if each.init} if config else set()
    for key in overrides:
        if key not in rules | options:
            raise unknown(f"setting of method {name!r}", key, rules | options)
    adapter = {**row.adapter, **{key: value for key, value in overrides.items() if key in options}}
    if config is not None:
        config(**adapter)  # the configuration checks its own values, here before a model is loaded
    return replace(row, adapter=adapter, **{key: value for key, value in overrides.items() if key in rules})


def attach(model: PreTrainedModel, method: Method) -> PreTrainedModel | PeftModel:
    """`model` ready to be trained by `method`: a PeftModel around it, or itself with every weight trainable.

    Full fine-tuning turns the weights into float32: a step of AdamW at these learning rates is smaller than
    bfloat16 can add to a weight.
    """
    config = method.peft_config(model)
    if config is not None:
        return get_peft_model(model, config)
    return model.float().requires_grad_(True)


def parameter_count(model: PreTrainedModel, method: Method) -> int:
    """How many parameters `method` trains on `model`, counted on a copy without memory (the meta device)."""
    with torch.device("meta"):
        tuned = attach(AutoModelForCausalLM.from_config(model.config), method)
    return sum(parameter.numel() for parameter in tuned.parameters() if parameter.requires_grad)
