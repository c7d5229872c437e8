"""How an adapter is fitted to a fine-tuned model."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from trimtab.registry import check_choice

FITTINGS = ("sequential", "tuned_stream", "parallel")
WEIGHTS = ("equal", "relative", "gradient")
METRICS = ("none", "logits", "gradient")

RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""What the ridge is chosen from on held-out prompts, as shares of the mean eigenvalue of the inputs' second moments."""


@dataclass(frozen=True)
class DistillationSettings:
    """How an adapter is fitted. Everything but the two kinds of `gradient` needs forward passes only.

    Args:
        fitting: what a layer's regression reads. `sequential`: the stream that the layers in front, already fitted,
            have steered. `parallel`: the base's own stream (the plain linearised oracle, in which every layer repeats
            what those in front have done). `tuned_stream`: what the base's block makes of the tuned model's stream.
        weights: how much the error at a token counts. `equal`; `relative`: 1 / mean(h^2), as an error counts relative
            to the stream, which the next norm divides by; `gradient`: |dlog p / dh|^2, how much the tuned model's
            answer depends on the token (one backward pass).
        answer_share: share of the weight that lies on the positions that predict the answer, together; None: what
            they have by themselves.
        metric: how the directions of an error count. `none`: all alike. `logits`: by what they do to the next-token
            distribution if they reach the last layer as they are (Fisher information there; forward passes only).
            `gradient`: by the tuned model's own gradients at that layer (one backward pass).
        metric_share: share of the metric beside the identity, below 1; of `logits` it grows from layer to layer up to
            this.
        ridge: lambda, as a share of the mean eigenvalue of the inputs' second moments; None: chosen for every layer on
            the held-out prompts.
        refinements: passes in which each layer is fitted again to what is left at the end of the model.
        step: share of what is left that a refinement goes after.
        validation: share of the texts that is held out: for the ridge, for whether a refinement is kept, and for what
            is reported.
        batch_tokens: tokens of a batch, padding included: the knob for memory.
        seed: which texts are held out, and the draws of `gradient`.
    """

    fitting: str = "sequential"
    weights: str = "relative"
    answer_share: float | None = 0.5
    metric: str = "none"
    metric_share: float = 0.9
    ridge: float | None = None
    refinements: int = 0
    step: float = 0.5
    validation: float = 0.2
    batch_tokens: int = 2048
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant, before a model runs."""
        for name, choices in (("fitting", FITTINGS), ("weights", WEIGHTS), ("metric", METRICS)):
            check_choice(name, getattr(self, name), choices)
        for name in ("answer_share", "metric_share", "validation"):
            value = getattr(self, name)
            if not (value is None and name == "answer_share") and not 0 < value < 1:
                raise ValueError(f"{name}={value!r} must lie between 0 and 1.")
        if self.ridge is not None and not (math.isfinite(self.ridge) and self.ridge >= 0):
            raise ValueError(f"ridge={self.ridge!r} must be a finite number of at least 0, or None.")
        if not 0 < self.step <= 1:
            raise ValueError(f"step={self.step!r} must lie between 0 and 1.")
        if self.refinements < 0 or self.batch_tokens < 1:
            raise ValueError(f"refinements={self.refinements} must be at least 0, batch_tokens={self.batch_tokens} 1.")
        if self.refinements and self.fitting != "sequential":
            raise ValueError("refinements go on from a sequential fit: leave fitting at 'sequential'.")

    @property
    def needs_backward(self) -> bool:
        """Whether something of it is taken from gradients."""
        return "gradient" in (self.weights, self.metric)

    def to_dict(self) -> dict[str, float | str | None]:
        """Every setting, for a report."""
        return {each.name: getattr(self, each.name) for each in fields(self)}
