"""The oracle: what training shifted, and how much of it a linear map of rank r explains (paper, section 3.3).

    D = h(fine-tuned) - h(base)       on the same tokens, h being the tensor of a site in a layer

D is the whole shift at that place, with what came from the layers in front. An adapter there should make D of h(base).
The best map of rank r is a reduced-rank ridge regression (`trimtab.regression`), the best vector the mean of D. Both
are fitted on one half of the prompts and scored on the other,

    explained = 1 - ||D - M h||^2 / ||D||^2

so that 0 is the base and 1 the fine-tuned model; below 0 the map does harm. Beside it, how much of ||D||^2 its r
leading directions hold: no map of rank r can explain more of what it is fitted on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from trimtab.analysis.base import (
    Analysis,
    AnalysisOptions,
    Finding,
    NothingToMeasureError,
    needs_float32,
    needs_more_tokens_than_width,
    needs_oracle,
)
from trimtab.analysis.layers import median, within_memory
from trimtab.analysis.stream import at_sites, batches, hidden_states
from trimtab.analysis.subject import Subject
from trimtab.figures import figure, series
from trimtab.regression import RegressionSums, reduced_rank_ridge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SITES = ("block", "mlp", "attention")
"""Where tensors of the stream's width are added to it, or are it."""
RANKS = (1, 4, 8, 32)
"""Of the maps, if none are asked for."""
DIRECTIONS = 64
"""How far the spectrum of D is kept."""


@dataclass(frozen=True)
class Oracle(Finding):
    """The shifts that training made, by site and layer; NaN where there is no shift.

    Attributes:
        sites: where.
        layers: decoder layers, from 0.
        ranks: of the maps.
        tokens: of the half on which maps are fitted, and of that on which they are scored.
        size: ||D|| / ||h||.
        explained: by the best map of each rank, held out.
        vector: explained by the best constant, held out.
        energy: the spectrum of D on the tokens of the fit: the share of ||D||^2 in its 1, 2, ... leading directions
            (squared singular values, added up), up to `DIRECTIONS` or the highest rank.
    """

    sites: tuple[str, ...]
    layers: tuple[int, ...]
    ranks: tuple[int, ...]
    tokens: tuple[int, int]
    size: Float[Tensor, "sites layers"]
    explained: Float[Tensor, "sites layers ranks"]
    vector: Float[Tensor, "sites layers"]
    energy: Float[Tensor, "sites layers directions"]

    def figure(self) -> Figure:
        """Size and explained share over the layers; explained share and spectrum over the ranks."""
        place = len(self.ranks) // 2
        with figure("oracle", 11, 3.6, font_size=9.5) as drawing:
            sizes, shares, ranks = drawing.subplots(1, 3)
            for index, site in enumerate(self.sites):
                style = {**series(index), "markersize": 4}
                sizes.plot(self.layers, self.size[index], **style, label=site)
                shares.plot(self.layers, self.explained[index, :, place], **style, label=site)
                medians = median(self.explained[index], dim=0)
                ranks.plot(self.ranks, medians, **series(index), label=f"{site}: explained")
                bound = median(self.energy[index], dim=0)
                ranks.plot(range(1, len(bound) + 1), bound, color=series(index)["color"], linewidth=0.9, linestyle=":")
            ranks.plot([], [], color="black", linewidth=0.9, linestyle=":", label="in as many directions of D")
            sizes.set_ylabel("||D|| / ||h||")
            sizes.set_ylim(bottom=0)
            shares.set_ylabel(f"explained by a map of rank {self.ranks[place]}")
            ranks.set_ylabel("share of ||D||², median layer")
            ranks.set_xscale("log", base=2)
            ranks.set_xticks(self.ranks, [str(rank) for rank in self.ranks])
            ranks.set_xlabel("rank")
            for axes in (sizes, shares):
                axes.set_xlabel("decoder layer")
                axes.locator_params(axis="x", integer=True)
            for axes in (shares, ranks):
                axes.set_ylim(min(0.0, axes.get_ylim()[0]), 1.02)
            for axes in (sizes, shares, ranks):
                axes.grid(axis="y")
                axes.legend(fontsize="small")
            return drawing

    @property
    def caption(self) -> str:
        """Quantities and source."""
        return (
            "The shifts D that training made, by site and layer: their size; the share that the best linear map of "
            f"rank {self.ranks[len(self.ranks) // 2]} of the base's tensor explains on held-out prompts; and the same "
            "by rank in the median layer, beside the share that as many directions of D hold (dotted) "
            "(paper: section 3.3, the oracle)."
        )

    @property
    def summary(self) -> str:
        """The block's numbers in the median layer."""
        sizes = self.size[0][~self.size[0].isnan()]
        by_rank = ", ".join(
            f"{value:.0%} at rank {rank}"
            for rank, value in zip(self.ranks, median(self.explained[0], dim=0).tolist(), strict=True)
        )
        return (
            f"Training shifts the {self.sites[0]}'s output by {sizes.min():.1%} to {sizes.max():.1%} of its size. In "
            f"the median layer a linear map explains {by_rank} of the squared shift, a vector "
            f"{median(self.vector[0]):.0%} ({self.tokens[1]:,} held-out tokens)."
        )


def _ranks(subject: Subject, options: AnalysisOptions) -> tuple[int, ...]:
    return options.ranks or tuple(rank for rank in RANKS if rank <= subject.width)


def needs_ranks_that_fit(subject: Subject, options: AnalysisOptions) -> str | None:
    """No map has more rank than the stream is wide."""
    highest = max(_ranks(subject, options))
    return (
        None if highest <= subject.width else f"The model is {subject.width:,} wide, too little for rank {highest:,}."
    )


def oracle(subject: Subject, options: AnalysisOptions) -> Oracle:
    """Products of d x d numbers are kept for each site, layer and half of the prompts.

    Raises:
        NothingToMeasureError: the trained model computes what its base computes.
    """
    with subject.as_base() as model:
        places = at_sites(model, SITES, options.layers)
    layers, ranks = sorted({layer for _, layer in places}), _ranks(subject, options)
    shape = (len(SITES), len(layers))
    size, vector = torch.full(shape, torch.nan), torch.full(shape, torch.nan)
    directions = min(max(DIRECTIONS, *ranks), subject.width)
    explained, energy = (torch.full((*shape, count), torch.nan) for count in (len(ranks), directions))
    for group in within_memory({place: 6 * host.width**2 for place, host in places.items()}, options.memory_gb):
        for (site, layer), (fit, score) in _sums(subject, options, group).items():
            where = (SITES.index(site), layers.index(layer))
            both = fit.plus(score)
            size[where] = (both.energy() / both.xx.trace()).sqrt()
            if fit.energy() > 0 and score.energy() > 0:
                for index, rank in enumerate(ranks):
                    best = reduced_rank_ridge(fit, rank, options.ridge)
                    explained[(*where, index)] = 1 - score.error(best) / score.energy()
                mean = reduced_rank_ridge(fit, 0, intercept=True)
                vector[where] = 1 - score.error(mean) / score.energy()
                squares = torch.linalg.eigvalsh(fit.yy).flip(0).cumsum(0) / fit.energy()
                energy[where] = squares[:directions].float().cpu()
    if explained.isnan().all():
        raise NothingToMeasureError("The trained model computes what its base computes: there is no shift.")
    return Oracle(
        sites=SITES,
        layers=tuple(layers),
        ranks=ranks,
        tokens=(subject.tokens(options.skip_first, 0), subject.tokens(options.skip_first, 1)),
        size=size,
        explained=explained,
        vector=vector,
        energy=energy,
    )


def _sums(
    subject: Subject, options: AnalysisOptions, places: list[tuple[str, int]]
) -> dict[tuple[str, int], tuple[RegressionSums, RegressionSums]]:
    """The products of h(base) and D at some places, over each half of the prompts."""
    sums: dict[tuple[str, int], tuple[RegressionSums, RegressionSums]] = {}
    sites, layers = sorted({site for site, _ in places}), sorted({layer for _, layer in places})
    for half in (0, 1):
        prompts = subject.prompts[half::2]
        for batch in batches(prompts, batch_tokens=options.batch_tokens, skip_first=options.skip_first):
            with subject.as_base() as model:
                base = hidden_states(model, batch, at_sites(model, sites, layers))
            with subject.as_tuned() as model:
                tuned = hidden_states(model, batch, at_sites(model, sites, layers))
            for place in places:
                h = base[place]
                if place not in sums:
                    zeros = [RegressionSums.zeros(h.shape[1], h.shape[1], h.device) for _ in range(2)]
                    sums[place] = (zeros[0], zeros[1])
                sums[place][half].add(h, tuned[place].to(h) - h)
    return sums


ANALYSIS = Analysis(
    title="The oracle: what training shifted",
    measure=oracle,
    needs=(needs_oracle, needs_float32, needs_ranks_that_fit, needs_more_tokens_than_width),
)
