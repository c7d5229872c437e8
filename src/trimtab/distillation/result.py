"""What a distillation leaves in numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from trimtab.results import Environment, Record


@dataclass(frozen=True)
class DistillationResult(Record):
    """How an adapter was fitted and how near it comes to the tuned model. Held-out texts chose ridges and,
    where there were any, which refinements were kept: KL and shares on them are a little better than on new texts.

    Attributes:
        base: the base's name.
        tuned: the tuned model's.
        adapter: the options of the steering configuration.
        parameters: of the adapter.
        texts: how many were fitted on.
        held_out: how many were not.
        tokens: of the texts that were fitted on.
        before: KL(tuned || base) on the held-out texts, nats a position: `answers`, `everywhere`, the counts, and
            standard errors over texts (see `Divergence`).
        after: KL(tuned || distilled), likewise.
        layers: for each steered layer its index, `ridge`, `explained` (the share of the squared shift, weighted as in
            the fit, that the adapter makes on held-out texts; negative where it adds error) and `explained_answers`
            (the same at the positions that predict the answer). Both are of the fit in front of refinements.
        refined: how many layers each refinement changed.
        seconds: wall time of the fit; reporting is not part of it.
        environment: versions, machine and code.
        settings: of the fit.
        scores: where answers were scored, `correct` and `n` of base, tuned and distilled model.
    """

    base: str
    tuned: str
    adapter: dict[str, Any]
    parameters: int
    texts: int
    held_out: int
    tokens: int
    before: dict[str, float]
    after: dict[str, float]
    layers: list[dict[str, float]]
    refined: list[int]
    seconds: float
    environment: Environment
    settings: dict[str, Any]
    scores: dict[str, dict[str, int]] = field(default_factory=dict)

    def __str__(self) -> str:
        """The divergences, before and after, with their standard errors over texts."""
        answers, everywhere = (
            " -> ".join(_with_error(each, where) for each in (self.before, self.after))
            for where in ("answers", "everywhere")
        )
        return (
            f"KL to {self.tuned} on {self.held_out:,} held-out texts, nats a position: answers {answers} "
            f"(n = {self.after['answer_positions']:,}), everywhere {everywhere} (n = {self.after['positions']:,})"
        )


def _with_error(divergence: dict[str, float], where: str) -> str:
    """The mean ± its standard error, which reports of an earlier version lack and a single text does not have."""
    error = divergence.get(f"{where}_error", math.nan)
    return f"{divergence[where]:.4f}" + ("" if math.isnan(error) else f" ± {error:.4f}")
