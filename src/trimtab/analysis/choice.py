"""One adapter that could be trained: what the advisor ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

KINDS = ("map", "vector")
"""What an adapter writes: a low-rank map of what it reads, or the same at every token."""


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
    def kind(self) -> str:
        """One of `KINDS`."""
        return "vector" if self.rank is None else "map"

    @property
    def gain_per_parameter(self) -> float:
        """Nats an answer token and parameter."""
        return self.gain / self.parameters

    @property
    def what(self) -> str:
        """In words: "vector" or "r=8"."""
        return "vector" if self.rank is None else f"r={self.rank}"


def require_ranks_that_fit(ranks: Sequence[int], widths: Mapping[str, int]) -> None:
    """Refuse ranks that no site has room for; those that some site has are left out at the others.

    Args:
        ranks: of low-rank maps.
        widths: of the sites, by name.

    Raises:
        ValueError: a rank above every width.
    """
    site, widest = max(widths.items(), key=lambda each: each[1])
    if max(ranks) > widest:
        where = f"{site!r} is" if len(widths) == 1 else f"The widest of the sites, {site!r}, is"
        raise ValueError(f"{where} {widest:,} wide, too little for rank {max(ranks):,}: give at most {widest:,}.")


def thirds(layers: Sequence[int]) -> list[tuple[int, ...]]:
    """The layers in three parts of equal size, the first ones a layer longer if need be; none of fewer than three."""
    if len(layers) < 3:
        return []
    return [tuple(part.tolist()) for part in torch.tensor(layers).tensor_split(3)]
