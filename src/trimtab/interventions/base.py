"""What every intervention has in common: a shift of a hidden state, added with a strength."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Heads:
    """The attention heads whose outputs, side by side, are the hidden state of the site `heads` in one layer.

    Attributes:
        layer: index of the decoder layer.
        count: how many there are; each has width / count numbers.
        selected: indices of those that are shifted, in ascending order.
        total: how many are shifted in all layers together.
    """

    layer: int
    count: int
    selected: tuple[int, ...]
    total: int


@dataclass(frozen=True)
class InterventionOptions:
    """What a configuration says of an intervention; each intervention reads the fields that concern it.

    Attributes:
        rank: r, the number of directions that are read and written.
        activation: name of f in `interventions/activations.py`; None is the identity.
        bias: add a constant vector to the shift.
        normalize: read h / rms(h) instead of h.
        init_weights: start as published; False draws every factor at random (for tests of plumbing).
        init_scale: factor on the random start of the reading side, or of the writing side with `random_up`.
        random_up: start with W_up at random and W_down at zero instead of the other way round.
        penalty: coefficient of the term that is added to the loss; None is the published one.
        heads: which heads of the tensor are shifted; None takes the whole tensor for one head.
    """

    rank: int = 8
    activation: str | None = None
    bias: bool = False
    normalize: bool = False
    init_weights: bool = True
    init_scale: float = 1.0
    random_up: bool = False
    penalty: float | None = None
    heads: Heads | None = None


class Intervention(nn.Module, ABC):
    """A shift of hidden states:  h <- h + s * shift(h).

    One instance serves one site of one decoder layer for one adapter. Its parameters may have another dtype
    than the stream; the result always has the dtype of the stream.
    """

    name: ClassVar[str]
    """The name in configurations; unique among the files of this folder."""

    uses: ClassVar[frozenset[str]] = frozenset()
    """The fields of `InterventionOptions` that change this intervention; others stay at their default."""

    starts_as_noop: ClassVar[bool] = True
    """A fresh one changes nothing, bit for bit; False where the published start is another."""

    stochastic: ClassVar[bool] = False
    """It draws random numbers in each forward pass of training mode."""

    per_head: ClassVar[bool] = False
    """It edits attention heads one by one, so it needs the site `heads`."""

    written: ClassVar[tuple[str, ...]] = ()
    """The parameters (width, ...) whose columns span every shift; empty where no such parameters say it all."""

    read: ClassVar[tuple[str, ...]] = ()
    """The parameters (..., width) through whose rows alone the shift depends on h; empty likewise."""

    def __init__(self, width: int, options: InterventionOptions) -> None:
        """Make the parameters for hidden states of `width` numbers, at their start values."""
        super().__init__()
        self.width = width
        self.options = options

    @abstractmethod
    def steer(
        self,
        h: Float[Tensor, "*batch width"],
        strength: float,
        tokens: Bool[Tensor, "*batch"] | None = None,
    ) -> Float[Tensor, "*batch width"]:
        """h + strength * shift(h) where `tokens` is true, h elsewhere; `tokens=None` means everywhere."""

    @abstractmethod
    def reset_parameters(self) -> None:
        """Set the parameters to their start values."""

    def reads(self, h: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """x, what the factors in `read` are applied to: h itself unless it is normalised first."""
        return h

    def constant_shift(self) -> Float[Tensor, " width"] | None:
        """The shift if it is the same for every h (it can then be merged into a bias), else None."""
        return None

    def penalty(self, step: int) -> Float[Tensor, ""] | None:
        """What the method adds to the mean loss a token after `step` optimiser steps; None where it adds nothing."""
        return None

    def extra_repr(self) -> str:
        """Width and every option that this intervention uses."""
        used = ", ".join(f"{field}={getattr(self.options, field)!r}" for field in sorted(self.uses))
        return f"width={self.width}" + (f", {used}" if used else "")


def check_rank(rank: int, width: int) -> None:
    """Raise a ValueError unless a site of `width` numbers has room for `rank` directions."""
    if not 1 <= rank <= width:
        raise ValueError(f"The rank r={rank} must lie between 1 and the width of the site, {width}.")
