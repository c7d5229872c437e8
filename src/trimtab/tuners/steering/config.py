"""What a user says of a steering adapter; a PEFT configuration."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peft.config import PeftConfig
from peft.utils.peft_types import PeftType

from trimtab.interventions import Intervention, InterventionOptions, get_intervention
from trimtab.interventions.activations import get_activation
from trimtab.positions import PositionPolicy, parse_positions
from trimtab.sites import sites_in
from trimtab.tuners.steering.files import adapter_tensors, add_loading_note
from trimtab.tuners.steering.heads import check_selection, checked_heads
from trimtab.tuners.steering.options import is_saved, with_known_options

FROM_GRADIENT = "gradient"
"""The start that needs to see the task; see `start_from_gradient`."""

RANDOM_UP = "random_up"
"""The start with W_up at random and W_down at zero."""


@with_known_options
@dataclass
class SteeringConfig(PeftConfig):
    """h <- h + strength * shift(h) at a site, by an intervention, on some positions, in some layers.

    The default is the method of the paper (section 5.1): a linear map of rank 8 on the residual stream after
    every decoder layer, for every token.

    Args:
        r: rank of a low-rank shift, 1 <= r <= width of the site. Interventions without a rank do not read it.
        site: where: `block` (the residual stream after the decoder layer), `mlp` and `attention` (what the
            sub-layer adds to the stream), `mlp_input` and `attention_input` (what it reads), `heads` (what the
            attention's output projection reads); or several of them, joined by "+", each with a shift of its own.
        intervention: what: `low_rank`, `vector`, `loreft`, `direft`, `nodireft`, or one that edits attention heads
            (`head_scale`, `head_bias`, `jola`).
        activation: f in W_up f(W_down h): None (linear), `silu`, `gelu`, `relu` or `tanh`.
        use_bias: add a constant vector to a low-rank shift.
        normalize: read h / rms(h) instead of h; this library's, not the paper's.
        layers: indices of the decoder layers that are steered; None is all of them.
        heads: attention heads that are edited, as [layer, head] pairs; None is all heads of `layers`. Interventions on
            heads read it (`head_scale`, `head_bias`, `jola`).
        select_heads: how many heads LoFiT's first stage selects for `heads`: a number, or below 1 a share of all heads.
            `trimtab.training.train` runs that stage; such a configuration cannot be attached before it.
        positions: `all`, `all_but_first(n)`, `last_prompt`, `first_last(n,m)` (of the prompt) or `generated`.
        strength: s, the dial; 0 is the base model. `trimtab.set_strength` changes it at any time.
        init_weights: start as a no-op, with W_down at random (True) or, once `trimtab.start_from_gradient` has seen
            some batches of the task, along the gradient ("gradient"; `trimtab.training.train` calls it); or with W_up
            at random and W_down at zero ("random_up"). False draws random weights, which is for tests.
        init_scale: factor on the Kaiming-uniform start of W_down (the paper's code has 1e-3), or of W_up.
        penalty: coefficient of what `head_scale` (L1) and `jola` (L0) add to the loss, or of LoFiT's first stage where
            `select_heads` asks for it; None is the published one, 0 adds nothing.
        target_modules: steer the output of these modules (names, suffixes or a regular expression, as everywhere
            in PEFT) instead of a site: for encoders and networks that have no decoder layers.
        exclude_modules: modules that `target_modules` must leave out.
        modules_to_save: further modules that are trained in full and saved with the adapter.
        base: what the adapter was made for (model type, hidden size, number of layers); filled in by the library.

    Raises:
        ValueError: an unknown name (with the nearest one), or a value out of range.
        TypeError: an unknown option (with the nearest one).
    """

    r: int = field(default=8, metadata={"help": "Rank of a low-rank shift."})
    site: str = field(default="block", metadata={"help": "Where the stream is shifted."})
    intervention: str = field(default="low_rank", metadata={"help": "What is added."})
    activation: str | None = field(default=None, metadata={"help": "f in W_up f(W_down h); None is linear."})
    use_bias: bool = field(default=False, metadata={"help": "Add a constant vector to a low-rank shift."})
    normalize: bool = field(default=False, metadata={"help": "Read h / rms(h) instead of h."})
    layers: list[int] | None = field(default=None, metadata={"help": "Decoder layers; None is all."})
    heads: list[list[int]] | None = field(default=None, metadata={"help": "Pairs [layer, head]; None is all heads."})
    select_heads: float | None = field(default=None, metadata={"help": "Heads that LoFiT's first stage selects."})
    positions: str = field(default="all", metadata={"help": "all, last_prompt, first_last(n,m) or generated."})
    strength: float = field(default=1.0, metadata={"help": "Factor on the shift; 0 is the base model."})
    init_weights: bool | str = field(
        default=True, metadata={"help": "Start as a no-op: True, 'gradient', 'random_up'."}
    )
    init_scale: float = field(default=1.0, metadata={"help": "Factor on the start of W_down."})
    penalty: float | None = field(default=None, metadata={"help": "Coefficient of the penalty on the loss."})
    target_modules: list[str] | str | None = field(
        default=None, metadata={"help": "Steer the output of these modules instead of a site."}
    )
    exclude_modules: list[str] | str | None = field(
        default=None, metadata={"help": "Modules that target_modules must leave out."}
    )
    modules_to_save: list[str] | None = field(
        default=None, metadata={"help": "Modules that are trained in full and saved with the adapter."}
    )
    base: dict[str, Any] | None = field(
        default=None, metadata={"help": "Model type, hidden size and layers of the base; filled in on attaching."}
    )

    def __post_init__(self) -> None:
        """Check every field, so that a mistake is reported before a model is touched."""
        super().__post_init__()
        # Not fields: what a saved configuration was made for (`base` tells what this one, or the one that it is a copy
        # of, is attached to), and names and shapes in the file beside it.
        self._saved_base = self.base if is_saved(self.peft_type) else None
        self._saved_shapes: dict[str, tuple[int, ...]] | None = None
        self.peft_type = PeftType["STEERING"]
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)  # type: ignore[assignment]  # as PEFT's tuners keep it
        if isinstance(self.exclude_modules, list):
            self.exclude_modules = set(self.exclude_modules)  # type: ignore[assignment]
        sites_in(self.site)
        intervention = get_intervention(self.intervention)
        get_activation(self.activation)
        parse_positions(self.positions)
        if isinstance(self.r, bool) or not isinstance(self.r, int) or self.r < 1:
            raise ValueError(f"The rank r={self.r!r} must be a whole number of at least 1.")
        for name in ("strength", "init_scale"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{name}={value!r} must be a finite number.")
        for name in ("use_bias", "normalize"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}={getattr(self, name)!r} must be True or False.")
        if not isinstance(self.init_weights, bool) and self.init_weights not in (FROM_GRADIENT, RANDOM_UP):
            raise ValueError(
                f"init_weights={self.init_weights!r} must be True, False, {FROM_GRADIENT!r} or {RANDOM_UP!r}."
            )
        if self.init_weights == RANDOM_UP and "random_up" not in intervention.uses:
            raise ValueError(
                f"The intervention {self.intervention!r} has no W_up: init_weights='random_up' is not for it."
            )
        if self.init_weights == FROM_GRADIENT and not (intervention.starts_as_noop and len(intervention.read) == 1):
            raise ValueError(
                f"The intervention {self.intervention!r} cannot start from the gradient: it needs one factor that "
                "reads, and a start that changes nothing, as 'low_rank' has."
            )
        for name, option in (("activation", "activation"), ("use_bias", "bias"), ("normalize", "normalize")):
            if option not in intervention.uses and getattr(self, name):
                raise ValueError(f"The intervention {self.intervention!r} takes no {name}.")
        if self.init_scale != 1.0 and "init_scale" not in intervention.uses:
            raise ValueError(f"The intervention {self.intervention!r} takes no init_scale.")
        self._check_layers()
        self._check_heads(intervention)
        if self.exclude_modules and self.target_modules is None:
            raise ValueError(
                "exclude_modules leaves modules out of target_modules; with a site, name `layers` instead."
            )
        if self.target_modules is not None and (self.site != "block" or self.layers is not None):
            raise ValueError("target_modules names the steered modules itself: leave site and layers at their default.")

    def _check_layers(self) -> None:
        if self.layers is None:
            return
        if isinstance(self.layers, int | str):
            raise ValueError(f"layers={self.layers!r} must be a list of layers, such as [0, 1].")
        self.layers = list(self.layers)
        for layer in self.layers:
            if isinstance(layer, bool) or not isinstance(layer, int) or layer < 0:
                raise ValueError(f"layers={self.layers!r}: {layer!r} is not the index of a layer (0, 1, 2, ...).")
        if not self.layers or len(set(self.layers)) < len(self.layers):
            raise ValueError(f"layers={self.layers!r} must name at least one layer, and each one once.")

    def _check_heads(self, intervention: type[Intervention]) -> None:
        if intervention.per_head and (self.site != "heads" or self.target_modules is not None):
            raise ValueError(f"The intervention {self.intervention!r} edits attention heads: it needs site='heads'.")
        for name in ("heads", "select_heads"):
            if getattr(self, name) is not None and not intervention.per_head:
                raise ValueError(f"The intervention {self.intervention!r} takes no {name}.")
        if self.heads is not None:
            if self.layers is not None or self.select_heads is not None:
                raise ValueError("heads names the layers and the heads itself: leave layers and select_heads out.")
            self.heads = checked_heads(self.heads)
        if self.select_heads is not None:
            check_selection(self.select_heads)
        if self.penalty is None:
            return
        if "penalty" not in intervention.uses and self.select_heads is None:
            raise ValueError(f"The intervention {self.intervention!r} takes no penalty.")
        number = isinstance(self.penalty, int | float) and not isinstance(self.penalty, bool)
        if not number or not math.isfinite(self.penalty) or self.penalty < 0:
            raise ValueError(f"penalty={self.penalty!r} must be a finite number of at least 0.")

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that are steered."""
        return sites_in(self.site)

    @property
    def steered_layers(self) -> list[int] | None:
        """The decoder layers that are steered; None is all of them."""
        return self.layers if self.heads is None else sorted({layer for layer, _ in self.heads})

    @property
    def options(self) -> InterventionOptions:
        """The part that concerns the intervention."""
        return InterventionOptions(
            rank=self.r,
            activation=self.activation,
            bias=self.use_bias,
            normalize=self.normalize,
            init_weights=self.init_weights is not False,
            init_scale=self.init_scale,
            random_up=self.init_weights == RANDOM_UP,
            penalty=self.penalty,
        )

    @property
    def policy(self) -> PositionPolicy:
        """The part that concerns the positions."""
        return parse_positions(self.positions)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str, subfolder: str | None = None, **kwargs: Any) -> Any:
        """As PEFT's, after a check of the adapter's file where it is a local one.

        Raises:
            ValueError: the file is truncated, is a pickle, or holds values that are not finite.
        """
        config = super().from_pretrained(pretrained_model_name_or_path, subfolder=subfolder, **kwargs)
        folder = Path(pretrained_model_name_or_path, subfolder or "")
        config._saved_shapes = adapter_tensors(folder) if folder.is_dir() else None
        return config

    def save_pretrained(self, save_directory: str, **kwargs: Any) -> None:
        """As PEFT's; the model card beside it learns that loading needs `import trimtab`."""
        super().save_pretrained(save_directory, **kwargs)
        add_loading_note(Path(save_directory), PeftType(self.peft_type).value)
