"""The options of the command line that change a named method."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from trimtab.methods import Method, get_method


@dataclass(frozen=True)
class MethodOptions:
    """Changes to the method. What is not given stays as the method has it.

    Args:
        site: where: block, mlp, mlp_input, attention, attention_input or heads, or several, joined by "+".
        intervention: what: low_rank, vector, loreft, ...; `trimtab methods` names all.
        positions: which tokens: all, all_but_first(n), last_prompt, first_last(n,m) or generated.
        layers: which decoder layers, as in [0,1,2].
        r: the rank, of LoRA too.
        activation: between the two factors: linear, silu, gelu, relu or tanh.
        use_bias: add a constant vector to a low-rank shift.
        normalize: read h / rms(h) instead of h.
        init_scale: factor on the random start of the factor that reads.
        learning_rate: AdamW's, at its peak.
        schedule: constant or cosine.
        warmup_ratio: share of the steps over which the rate climbs from 0.
        weight_decay: AdamW's.
        rate_factors: factors on the learning rate by parameter, as in --rate_factors.down 2 (see docs/the-method.md).
        adapter_options: any other field of the adapter's PEFT configuration, as in
            --adapter_options.lora_alpha 16; of a joint method's LoRA half, --adapter_options.lora.r 4.
    """

    site: str | None = None
    intervention: str | None = None
    positions: str | None = None
    layers: list[int] | None = None
    r: int | None = None
    activation: str | None = None
    use_bias: bool | None = None
    normalize: bool | None = None
    init_scale: float | None = None
    learning_rate: float | None = None
    schedule: str | None = None
    warmup_ratio: float | None = None
    weight_decay: float | None = None
    rate_factors: dict[str, float] | None = None
    adapter_options: dict[str, Any] | None = None

    def change(self, name: str) -> Method:
        """The method called `name` with these changes.

        Raises:
            ValueError: an unknown name or option, or a value out of range.
        """
        given = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "adapter_options"}
        changes = {
            **(self.adapter_options or {}),
            **{key: value for key, value in given.items() if value is not None},
        }
        if changes.get("activation") == "linear":  # SteeringConfig calls it None, which here means "not given"
            changes["activation"] = None
        return get_method(name, **changes)
