"""What the advisor says: the first-order gain of an adapter at each site, in each layer, of each rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from trimtab.analysis.base import Finding
from trimtab.analysis.choice import KINDS, Choice, require_ranks_that_fit, thirds
from trimtab.registry import check_choice
from trimtab.theory.first_order_gain import first_order_gain
from trimtab.tuners.steering import SteeringConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RANKS = (1, 2, 4, 8, 16, 32)
RADII = ("relative", "absolute")
READ_LENGTH = 1 / math.sqrt(3)
"""The length of a row of W_down at its start; what is written is compared at this reading."""


@dataclass(frozen=True)
class Advice(Finding):
    """Singular values of G and the length of the summed gradient, by site and layer.

    An adapter writes directions: the columns of W_up, or v. Let W_up (or v) have norm at most eps l in each layer, and
    W_down orthogonal rows of length rho = 1 / sqrt(3), as in the start along the gradient. The largest first-order fall
    of the loss is then, summed over its layers,

        rank r:   eps l rho (s_1 + ... + s_r)             for the spectral norm of W_up,
                  eps l rho sqrt(s_1^2 + ... + s_r^2)      for its Frobenius norm;
        vector:   eps l ||sum over tokens of dloss/dh||

    A map that reads h instead of h / rms(h) has, with l, what it reads made as long: its W_down has rows of length rho
    sqrt(d) / l, so that of a typical token it reads as much as if that had been normalised. `gain` is that for eps = 1.
    AdamW moves every entry of W_up and of v at the same rate, whatever the gradient's size: the directions that one
    adapter writes grow alike, which is the spectral norm, the default. With the radius "absolute", l = 1: the same
    length everywhere, as at one learning rate. With "relative", the default, l is the typical length of the site's
    hidden states: the same share of them everywhere, since the loss stops being linear where a shift is no longer small
    beside what it shifts. Streams grow tens of times from the first layer to the last.

    Attributes:
        sites: where it was measured.
        layers: the decoder layers.
        model_layers: how many the model has.
        widths: of the sites.
        singular_values: of G, a site's (layers, k), the largest k of each; nats an answer token.
        vector_norms: ||sum dloss/dh||, (sites, layers); nats an answer token.
        lengths: l, the geometric mean of ||h|| over the tokens on which the loss depends, (sites, layers).
        loss: of the base on these examples, nats an answer token.
        answer_tokens: over which that was averaged.
        normalize: whether the maps read h / rms(h).
        positions: which tokens are steered.
        ball: the norm of W_up that is bounded: "spectral" or "frobenius".
        radius: by how much: "relative" or "absolute".
    """

    sites: tuple[str, ...]
    layers: tuple[int, ...]
    model_layers: int
    widths: tuple[int, ...]
    singular_values: tuple[Float[Tensor, "layers k"], ...]
    vector_norms: Float[Tensor, "sites layers"]
    lengths: Float[Tensor, "sites layers"]
    loss: float
    answer_tokens: int
    normalize: bool
    positions: str
    ball: str
    radius: str

    def gains(self, site: str, rank: int | None) -> Float[Tensor, " layers"]:
        """The gain in each layer.

        Args:
            site: one of `sites`.
            rank: of the map; None: of a vector.

        Raises:
            ValueError: a site that was not measured, or a rank above the number of singular values that were kept.
        """
        index = self.sites.index(check_choice("site", site, self.sites))
        length = self.lengths[index] if self.radius == "relative" else 1.0
        if rank is None:
            return length * self.vector_norms[index]
        if self.radius == "relative" and not self.normalize:
            length = math.sqrt(self.widths[index])  # l times the sqrt(d) / l by which W_down is scaled
        return length * READ_LENGTH * first_order_gain(self.singular_values[index], rank, self.ball)

    def choice(self, site: str, rank: int | None, layers: Sequence[int] | None = None) -> Choice:
        """An adapter at `site` in `layers` (None: all that were measured); its layers' gains add up.

        Raises:
            ValueError: as `gains`; no layers, or one that was not measured.
        """
        layers = self.layers if layers is None else tuple(layers)
        if not layers:
            raise ValueError("layers is empty: name at least one.")
        for layer in layers:
            if layer not in self.layers:
                raise ValueError(f"Layer {layer} was not measured; measured are {', '.join(map(str, self.layers))}.")
        gains = self.gains(site, rank)
        width = self.widths[self.sites.index(site)]
        return Choice(
            site=site,
            layers=layers,
            rank=rank,
            parameters=len(layers) * (width if rank is None else 2 * width * rank),
            gain=float(sum(gains[self.layers.index(layer)] for layer in layers)),
        )

    def rankings(self, ranks: Sequence[int] | None = None) -> dict[str, list[Choice]]:
        """Each kind at every site, in all layers, in each third of them and in each one; best first.

        Best is the largest gain a parameter, among maps or among vectors: `caveat` says why not among both.

        Args:
            ranks: of the maps; those that are wider than a site are left out there; None: those of `RANKS` that were
                kept.

        Raises:
            ValueError: a rank above the width of every site, or above the number of singular values that were kept.
        """
        groups = dict.fromkeys((self.layers, *thirds(self.layers), *((layer,) for layer in self.layers)))
        found = [
            self.choice(site, rank, group)
            for site in self.sites
            for rank in (None, *self._ranks(site, ranks))
            for group in groups
        ]
        ordered = sorted(found, key=lambda choice: -choice.gain_per_parameter)
        return {kind: [choice for choice in ordered if choice.kind == kind] for kind in KINDS}

    def maps(self, site: str) -> list[Choice]:
        """Low-rank maps at `site` in all layers, of those of `RANKS` whose singular values were kept."""
        return [self.choice(site, rank) for rank in self._ranks(site, None)]

    def best_within(self, parameters: int, ranks: Sequence[int] | None = None) -> dict[str, Choice]:
        """Of each kind that fits the largest gain with at most so many parameters: one site, one rank, its best layers.

        Args:
            parameters: how many it may have.
            ranks: as in `rankings`.

        Raises:
            ValueError: not even one layer fits; or as `rankings`.
        """
        found = []
        for site in self.sites:
            for rank in (None, *self._ranks(site, ranks)):
                fitting = parameters // self.choice(site, rank, self.layers[:1]).parameters
                order = self.gains(site, rank).argsort(descending=True).tolist()[:fitting]
                if order:
                    found.append(self.choice(site, rank, sorted(self.layers[index] for index in order)))
        if not found:
            raise ValueError(f"No adapter has at most {parameters:,} parameters: a vector in one layer has more.")
        by_gain = sorted(found, key=lambda choice: choice.gain)
        best = {choice.kind: choice for choice in by_gain}
        return {kind: best[kind] for kind in KINDS if kind in best}

    def config(self, choice: Choice) -> SteeringConfig:
        """A choice as a PEFT configuration; a map starts along the gradient, which `trimtab.training.train` does."""
        everywhere = len(choice.layers) == self.model_layers
        where: dict[str, Any] = {
            "site": choice.site,
            "layers": None if everywhere else list(choice.layers),
            "positions": self.positions,
        }
        if choice.rank is None:
            return SteeringConfig(intervention="vector", **where)
        return SteeringConfig(r=choice.rank, normalize=self.normalize, init_weights="gradient", **where)

    def to_dict(self) -> dict[str, Any]:
        """Every field, the rankings and what they are worth."""
        rankings = {
            kind: [{**asdict(each), "gain_per_parameter": each.gain_per_parameter} for each in choices]
            for kind, choices in self.rankings().items()
        }
        return {**super().to_dict(), "rankings": rankings, "caveat": self.caveat}

    @property
    def kept(self) -> int:
        """The largest rank that can be asked for at every site."""
        return min(values.shape[1] for values in self.singular_values)

    def _ranks(self, site: str, ranks: Sequence[int] | None) -> list[int]:
        """Of `ranks` those that the site has room for."""
        index = self.sites.index(site)
        if ranks is None:
            return [rank for rank in RANKS if rank <= self.singular_values[index].shape[1]]
        require_ranks_that_fit(ranks, dict(zip(self.sites, self.widths, strict=True)))
        return [rank for rank in ranks if rank <= self.widths[index]]

    def figure(self) -> Figure:
        """Of maps the gain in each layer, and in all layers over the parameters; of vectors the gain in each layer."""
        from trimtab.analysis.advice_figure import advice_figure

        return advice_figure(self)

    @property
    def unit(self) -> str:
        """What eps = 1 means, in words."""
        return "as long as the hidden states" if self.radius == "relative" else "of length 1"

    @property
    def caption(self) -> str:
        """What the figure shows."""
        reading = "h / rms(h)" if self.normalize else "h"
        return (
            f"The largest first-order fall of the loss by an adapter that reads {reading} and writes directions "
            f"{self.unit} ({self.ball} norm), on positions {self.positions!r}: singular values of the gradient of the "
            "un-adapted model. Maps and vectors are not to be compared by it. trimtab's own, not in the paper."
        )

    @property
    def caveat(self) -> str:
        """What the rankings are worth, as far as that was measured (docs/advisor.md, benchmarks/advisor.py)."""
        if self.radius == "relative":
            within = "Within a kind it ranked about as well as the number of parameters alone."
        else:
            within = f"With the radius 'absolute' it was no guide among {'maps or ' if self.normalize else ''}vectors."
        return (
            "Gain per parameter does not compare a map with a vector: where it was tested, every vector gained more "
            f"per parameter than any map, and the prediction ranked some maps above vectors. {within}"
        )

    @property
    def summary(self) -> str:
        """The best site of rank 8 and of a vector, and where in the model the gain is."""
        rank = min(8, self.kept)
        best = max((self.choice(site, rank) for site in self.sites), key=lambda choice: choice.gain)
        vector = max((self.choice(site, None) for site in self.sites), key=lambda choice: choice.gain)
        peak = self.layers[int(self.gains(best.site, rank).argmax())]
        return (
            f"In all layers and at {best.what}, {best.site!r} promises most ({best.gain:.3g} nats an answer token for "
            f"directions {self.unit}), in layer {peak} more than in any other; of the vectors, {vector.site!r} "
            f"({vector.gain:.3g}). The base's loss is {self.loss:.3f}."
        )
