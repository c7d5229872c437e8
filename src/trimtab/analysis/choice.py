"""One adapter that could be trained: what the advisor ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Choice:
    """One adapter that could be trained.

    Attributes:
        site: where.
        layers: the decoder layers.
        rank: of a low-rank shift; None: a vector.
        parameters: how many it trains.
        gain: the largest first-order fall of the loss, in nats an answer token, for eps = 1 (see `Advice`).
    """

    site: str
    layers: tuple[int, ...]
    rank: int | None
    parameters: int
    gain: float

    @property
    def gain_per_parameter(self) -> float:
        """Nats an answer token and parameter."""
        return self.gain / self.parameters

    @property
    def what(self) -> str:
        """In words: "vector" or "r=8"."""
        return "vector" if self.rank is None else f"r={self.rank}"


def thirds(layers: Sequence[int]) -> list[tuple[int, ...]]:
    """The layers in three parts of equal size, the first ones a layer longer if need be; none of fewer than three."""
    if len(layers) < 3:
        return []
    return [tuple(part.tolist()) for part in torch.tensor(layers).tensor_split(3)]
