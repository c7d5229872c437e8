"""What every intervention has in common: a shift of a hidden state, added with a strength."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor, nn


@dataclass(frozen=True)
class InterventionOptions:
    """What a configuration says of an intervention; each intervention reads the fields that concern it.

    Attributes:
        rank: r, the number of directions that are read and written.
        activation: name of f in `interventions/activations.py`; None is the identity.
        bias: add a constant vector to the shift.
        normalize: read h / rms(h) instead of h.
        init_weights: start as a no-op; False draws every factor at random (for tests of plumbing).
        init_scale: factor on the Kaiming-uniform start of the reading side.
    """

    rank: int = 8
    activation: str | None = None
    bias: bool = False
    normalize: bool = False
    init_weights: bool = True
    init_scale: float = 1.0


class Intervention(nn.Module, ABC):
    """A shift of hidden states:  h <- h + s * shift(h).

    One instance serves one site of one decoder layer for one adapter. Its parameters may have another dtype
    than the stream; the result always has the dtype of the stream.
    """

    name: ClassVar[str]
    """The name in configurations; unique among the files of this folder."""

    uses: ClassVar[frozenset[str]] = frozenset()
    """The fields of `InterventionOptions` that change this intervention; others stay at their default."""

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

    def constant_shift(self) -> Float[Tensor, " width"] | None:
        """The shift if it is the same for every h (it can then be merged into a bias), else None."""
        return None

    def extra_repr(self) -> str:
        """Width and every option that this intervention uses."""
        used = ", ".join(f"{field}={getattr(self.options, field)!r}" for field in sorted(self.uses))
        return f"width={self.width}" + (f", {used}" if used else "")
