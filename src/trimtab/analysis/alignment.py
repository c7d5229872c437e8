"""Do the adapter and the weight update learn the same directions first? (paper, section 4.1; figure 3, right)

With the residual R = target - output, gradient descent from zero moves steering behind the block along R X^T and the
weight that the MLP writes with along R Phi^T (`trimtab.theory.joint_dynamics`). Here, in each layer,

    R    = z(fine-tuned) - z(base)      the oracle's shift of the block's output
    X    = z - G                        the stream in front of the MLP's skip-connection, in the base
    Phi                                 what the MLP's last matrix W_d reads, in the base:  G = W_d Phi

and the 50 leading left-singular vectors of the two products are compared: the paper's figure. X is what its appendix
reads, where training starts without a weight behind it. In a pretrained model the adapter reads the block's output Z,
so R Z^T, which is where it really begins to move, is compared with R Phi^T as well.

Where a norm stands behind W_d (Gemma 3), G = diag(g) W_d Phi' with Phi' = Phi / rms(W_d Phi): the descent moves W_d
along diag(g) R Phi'^T, and the stream along diag(g)^2 R Phi'^T, which is compared then; the norm's own dependence on
the update is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from trimtab.analysis.alignment_sums import Reads, products
from trimtab.analysis.base import (
    Analysis,
    AnalysisOptions,
    Finding,
    Need,
    NothingToMeasureError,
    needs_float32,
    needs_oracle,
)
from trimtab.analysis.layers import median, spread, within_memory
from trimtab.analysis.subject import Subject
from trimtab.figures import figure, series
from trimtab.theory.joint_dynamics import singular_alignment
from trimtab.tuners.joint.stream_weights import stream_weights

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROUNDING = 1e-5  # of the largest direction of a difference of float32 streams


@dataclass(frozen=True)
class Alignment(Finding):
    """The leading left-singular vectors u of R X^T and v of R Phi^T.

    Attributes:
        layers: decoder layers, from 0; those in which the oracle shifts in fewer than `count` directions are left out.
        count: how many vectors are compared.
        chance: the mean of |u . v| for random directions, about sqrt(2 / (pi d)).
        diagonal: mean of |u_i . v_i|: 1 where both learn the same directions in the same order.
        overlap: ||U^T V||^2 / count: 1 where both learn the same space, in whatever order; by chance count / d.
        chance_overlap: count / d.
        shown: the layers whose matrices are kept.
        matrices: |u_i . v_j| of these.
        output_diagonal: as `diagonal`, with R Z^T instead of R X^T.
        output_overlap: as `overlap`, likewise.
    """

    layers: tuple[int, ...]
    count: int
    chance: float
    diagonal: Float[Tensor, " layers"]
    overlap: Float[Tensor, " layers"]
    chance_overlap: float
    shown: tuple[int, ...]
    matrices: Float[Tensor, "shown count count"]
    output_diagonal: Float[Tensor, " layers"]
    output_overlap: Float[Tensor, " layers"]

    def figure(self) -> Figure:
        """The matrices of a few layers, and two numbers for all of them."""
        with figure("alignment", 9.2, 4.6, font_size=9.5) as drawing:
            places: Any = drawing.subplot_mosaic([[*map(str, self.shown)], ["means"] * len(self.shown)])
            for layer, matrix in zip(self.shown, self.matrices, strict=True):
                axes = places[str(layer)]
                image = axes.imshow(matrix, cmap="Greys", vmin=0, vmax=1, interpolation="nearest")
                axes.set_title(f"layer {layer}")
                axes.set_xlabel("of R Phiᵀ")
            places[str(self.shown[0])].set_ylabel("singular vectors of R Xᵀ")
            drawing.colorbar(image, ax=[places[str(layer)] for layer in self.shown], label="|u · v|", shrink=0.8)
            axes = places["means"]
            axes.plot(self.layers, self.overlap, **series(0), label="overlap of the two spaces")
            axes.plot(self.layers, self.diagonal, **series(1), label="mean of the diagonal")
            axes.plot(self.layers, self.output_overlap, **series(2), label="overlap, R Zᵀ")
            axes.plot(self.layers, self.output_diagonal, **series(3), label="diagonal, R Zᵀ")
            axes.axhline(self.chance_overlap, color=series(0)["color"], linestyle=":", linewidth=1, label="by chance")
            axes.axhline(self.chance, color=series(1)["color"], linestyle=":", linewidth=1)
            axes.set_ylim(0, 1.02)
            axes.set_xlabel("decoder layer")
            axes.locator_params(axis="x", integer=True)
            axes.grid(axis="y")
            axes.legend(fontsize="small", ncols=3)
            return drawing

    @property
    def caption(self) -> str:
        """Quantity and source."""
        return (
            f"Inner products of the {self.count} leading left-singular vectors of R Xᵀ (what a post-block adapter "
            "learns first) and of R Phiᵀ (what the MLP's last matrix learns first), R being the shift that training "
            "made (paper: figure 3, right). Near the diagonal both learn the same directions."
        )

    @property
    def summary(self) -> str:
        """The medians over layers, beside chance."""
        return (
            f"The two spaces of {self.count} directions overlap by {median(self.overlap):.0%} in the median layer "
            f"({self.overlap.min():.0%} to {self.overlap.max():.0%}; by chance {self.chance_overlap:.0%}); vectors of "
            f"the same rank have an inner product of {median(self.diagonal):.2f} (by chance {self.chance:.2f}). With "
            f"the block's output Z, which the adapter reads, instead of X: {median(self.output_overlap):.0%} and "
            f"{median(self.output_diagonal):.2f}."
        )


def alignment(subject: Subject, options: AnalysisOptions) -> Alignment:
    """Sums R R^T, R X^T, R Z^T (d, d) and R Phi^T (d, m) are kept for each layer; the rest is a function of these.

    Raises:
        NothingToMeasureError: in no layer the oracle shifts in as many directions as are to be compared.
    """
    reads = Reads(subject.model, options)
    found: dict[int, Tensor] = {}
    with_output: dict[int, Tensor] = {}
    for layers in within_memory(reads.sizes, options.memory_gb):
        for layer, sums in products(subject, options, reads, layers).items():
            if _rank(sums.residual) >= options.directions:
                found[layer] = singular_alignment(sums.with_stream, sums.with_features, options.directions)
                with_output[layer] = singular_alignment(sums.with_output, sums.with_features, options.directions)
    if not found:
        raise NothingToMeasureError(
            f"In no layer the training shifted the block's output in {options.directions} directions."
        )
    shown = spread(list(found))
    stacked, of_output = (torch.stack(list(each.values())).cpu() for each in (found, with_output))
    return Alignment(
        layers=tuple(found),
        count=options.directions,
        chance=math.sqrt(2 / (math.pi * subject.width)),
        diagonal=stacked.diagonal(dim1=1, dim2=2).mean(1),
        overlap=stacked.square().sum((1, 2)) / options.directions,
        chance_overlap=options.directions / subject.width,
        shown=tuple(shown),
        matrices=torch.stack([found[layer].cpu() for layer in shown]),
        output_diagonal=of_output.diagonal(dim1=1, dim2=2).mean(1),
        output_overlap=of_output.square().sum((1, 2)) / options.directions,
    )


def _rank(square: Float[Tensor, "d d"]) -> int:
    """How many directions of R stand out of the rounding of the float32 stream."""
    sizes = torch.linalg.eigvalsh(square).clamp(min=0).sqrt()
    return int((sizes > _ROUNDING * sizes[-1]).sum())


def needs_one_writing_matrix(subject: Subject, options: AnalysisOptions) -> str | None:
    """Each MLP ends in one matrix: a mixture of experts does not."""
    try:
        stream_weights(subject.model, "down_proj", options.layers)
    except ValueError:
        return "It needs MLPs that write to the stream with one matrix, which this family has not in every layer."
    return None


def needs_as_many_directions(subject: Subject, options: AnalysisOptions) -> str | None:
    """The two products have as many singular vectors as are compared."""
    most = min(subject.width, subject.tokens(options.skip_first))
    if options.directions <= most:
        return None
    return f"{options.directions} directions cannot be compared where there are {most}: set --directions."


_NEEDS: tuple[Need, ...] = (needs_oracle, needs_float32, needs_one_writing_matrix, needs_as_many_directions)

ANALYSIS = Analysis(title="Do adapter and weights learn the same directions?", measure=alignment, needs=_NEEDS)
