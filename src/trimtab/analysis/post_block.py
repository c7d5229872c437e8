"""Can steering after the block stand for steering after the MLP? Theorem 3.1 on real activations (paper, section 3.3).

For a post-MLP steering T = A G the best linear post-block steering M Z misses, of ||T||^2, what lies outside of the row
space of Z (`trimtab.theory.post_block`). A depends on what will be learnt. For a random A of any rank with
E A^T A a multiple of I, E ||missed||^2 / E ||T||^2 is the share for A = I, which is measured here:

    min_M ||G - M Z||^2 / ||G||^2

This is a ratio of expectations. A single A of full rank has nearly that share too; the shares of single A of low rank
scatter, and their mean may be another.

The functions of the theory take matrices with a column a token, but depend on products of rows only. So tokens are
summed into the products G G^T, G Z^T, Z Z^T, and the theory is asked about matrices of 2 d columns that have the same
products. Maps are also fitted on one half of the prompts and scored on the other: with n tokens, a fit by itself hides
about d / n of the error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from trimtab.analysis.base import Analysis, AnalysisOptions, Finding, needs_more_tokens_than_width
from trimtab.analysis.layers import median, spread, within_memory
from trimtab.analysis.stream import at_sites, batches, hidden_states
from trimtab.analysis.subject import Subject
from trimtab.figures import figure, series
from trimtab.linalg import column_basis, principal_angles
from trimtab.regression import RegressionSums, reduced_rank_ridge
from trimtab.theory.post_block import angle_bounds, linear_map_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class PostBlock(Finding):
    """What a post-block map misses of the MLP's output.

    Attributes:
        layers: decoder layers, from 0.
        tokens: n of the fit of all prompts, and n of each half.
        width: d.
        error: theorem 3.1, fitted and measured on all tokens.
        held_out: fitted on one half of the prompts and measured on the other.
        shown: the layers of which there are angles.
        angles: the principal angles between the row spaces of G and Z in degrees, smallest first.
        bounds: what the angles alone say about `error`: from, to.
    """

    layers: tuple[int, ...]
    tokens: tuple[int, int, int]
    width: int
    error: Float[Tensor, " layers"]
    held_out: Float[Tensor, " layers"]
    shown: tuple[int, ...]
    angles: tuple[Float[Tensor, " angles"], ...]
    bounds: Float[Tensor, "shown 2"]

    def figure(self) -> Figure:
        """Errors over the layers; principal angles of a few of them."""
        with figure("post-block", 9.2, 3.4) as drawing:
            errors, angles = drawing.subplots(1, 2)
            errors.plot(self.layers, self.held_out, **{**series(0), "markersize": 4}, label="on held-out prompts")
            errors.plot(
                self.layers, self.error, **{**series(1), "markersize": 4}, label="theorem 3.1, on its own tokens"
            )
            errors.set_ylim(bottom=0)
            errors.set_xlabel("decoder layer")
            errors.locator_params(axis="x", integer=True)
            errors.set_ylabel("missed share of ||G||²")
            for index, (layer, values) in enumerate(zip(self.shown, self.angles, strict=True)):
                share = torch.linspace(0, 1, len(values))
                angles.plot(share, values, **{**series(index), "marker": ""}, label=f"layer {layer}")
            angles.set_ylim(0, 90)
            angles.set_xlabel("share of the directions")
            angles.set_ylabel("principal angle, degrees")
            for axes in (errors, angles):
                axes.grid(axis="y")
                axes.legend(fontsize="small")
            return drawing

    @property
    def caption(self) -> str:
        """Quantities and source."""
        return (
            "Left: the share of the MLP's output that the best linear map of the block's output misses, in each layer. "
            "Right: the principal angles between the row spaces of the two, of the most to the least similar direction "
            f"(paper: theorem 3.1, with n = {self.tokens[0]:,} tokens and d = {self.width:,})."
        )

    @property
    def summary(self) -> str:
        """The range of the errors, and what angles alone would say."""
        low, high = self.bounds[len(self.bounds) // 2].tolist()
        return (
            f"A linear post-block map misses {self.held_out.min():.1%} to {self.held_out.max():.1%} of a random linear "
            f"post-MLP steering on held-out prompts, {median(self.held_out):.1%} in the median layer (on the tokens "
            f"of the fit {median(self.error):.1%}). Principal angles alone say \N{LEFT DOUBLE QUOTATION MARK}between "
            f"{low:.2f} and {high:.2f}\N{RIGHT DOUBLE QUOTATION MARK} of layer {self.shown[len(self.shown) // 2]}."
        )


def post_block(subject: Subject, options: AnalysisOptions) -> PostBlock:
    """Three products of d x d numbers are kept for each layer and half of the prompts."""
    with subject.as_base() as model:
        every = at_sites(model, ("block", "mlp"), options.layers)
    layers = sorted({layer for _, layer in every})
    shown = spread(layers)
    error, held_out, angles, bounds = [], [], [], []
    for group in within_memory(dict.fromkeys(layers, 6 * subject.width**2), options.memory_gb):
        for layer, (fit, score) in _sums(subject, options, group).items():
            mlp, block = matrices_with_the_products_of(fit.plus(score))
            error.append(linear_map_error(block, mlp))
            best = reduced_rank_ridge(fit, subject.width, options.ridge)
            held_out.append(score.error(best) / score.energy())
            if layer in shown:
                rows = (column_basis(mlp.mT), column_basis(block.mT))
                angles.append(torch.rad2deg(principal_angles(*rows)).cpu())
                bounds.append(torch.stack(angle_bounds(block, mlp)))
    return PostBlock(
        layers=tuple(layers),
        tokens=tuple(subject.tokens(options.skip_first, half) for half in (None, 0, 1)),  # type: ignore[arg-type]
        width=subject.width,
        error=torch.stack(error).cpu(),
        held_out=torch.stack(held_out).cpu(),
        shown=tuple(shown),
        angles=tuple(angles),
        bounds=torch.stack(bounds).cpu(),
    )


def matrices_with_the_products_of(
    sums: RegressionSums,
) -> tuple[Float[Tensor, "d columns"], Float[Tensor, "p columns"]]:
    """Y' and X' of d + p columns with Y' Y'^T = Y Y^T, Y' X'^T = Y X^T and X' X'^T = X X^T.

    A symmetric square root of the products of [Y; X], which differs from [Y; X] by a rotation of the samples.
    """
    products = torch.cat([torch.cat([sums.yy, sums.xy.mT], 1), torch.cat([sums.xy, sums.xx], 1)])
    squares, vectors = torch.linalg.eigh(products)
    # What is below is rounding, and its square root would not be small.
    kept = squares > len(squares) * torch.finfo(squares.dtype).eps * squares[-1]
    root = vectors * torch.where(kept, squares, 0).sqrt()
    first, second = root.split([len(sums.yy), len(sums.xx)])
    return first, second


def _sums(
    subject: Subject, options: AnalysisOptions, layers: list[int]
) -> dict[int, tuple[RegressionSums, RegressionSums]]:
    """The products of Z and G of some layers, over each half of the prompts."""
    sums: dict[int, tuple[RegressionSums, RegressionSums]] = {}
    with subject.as_base() as model:
        hosts = at_sites(model, ("block", "mlp"), layers)
        for half in (0, 1):
            prompts = subject.prompts[half::2]
            for batch in batches(prompts, batch_tokens=options.batch_tokens, skip_first=options.skip_first):
                found = hidden_states(model, batch, hosts)
                for layer in layers:
                    z, mlp = found["block", layer], found["mlp", layer]
                    if layer not in sums:
                        zeros = [RegressionSums.zeros(z.shape[1], z.shape[1], z.device) for _ in range(2)]
                        sums[layer] = (zeros[0], zeros[1])
                    sums[layer][half].add(z, mlp)
    return sums


ANALYSIS = Analysis(
    title="Can a post-block steering stand for a post-MLP one?",
    measure=post_block,
    needs=(needs_more_tokens_than_width,),
)
