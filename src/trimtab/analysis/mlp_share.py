"""The MLP's share of the block's output (paper, section 3.3; figure 3, left).

    z = x + Attn + G          G: what the MLP adds to the stream,   z: the block's output
    share at a token = ||G|| / ||z||

The terms of z are not orthogonal, so the shares of x, attention and the MLP do not add up to 1. Two other readings are
given beside it: what G contributes along z, <G, z> / ||z||^2, where the parts do add up to 1; and the MLP's part of
what the block adds to its input, ||G|| / (||Attn|| + ||G||).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from trimtab.analysis.base import Analysis, AnalysisOptions, Finding
from trimtab.analysis.layers import median
from trimtab.analysis.stream import at_sites, batches, hidden_states
from trimtab.analysis.subject import Subject
from trimtab.figures import LINE, MUTED, figure, series

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER = (0.4, 0.7)
"""The shares that the paper reports."""


@dataclass(frozen=True)
class MlpShare(Finding):
    """What the sub-layers add to the stream, as shares of the block's output; means over the tokens of each prompt.

    Attributes:
        layers: decoder layers, from 0.
        mlp: ||G|| / ||z||.
        attention: ||Attn|| / ||z||.
        mlp_along: <G, z> / ||z||^2.
        of_added: ||G|| / (||Attn|| + ||G||).
    """

    layers: tuple[int, ...]
    mlp: Float[Tensor, "layers prompts"]
    attention: Float[Tensor, "layers prompts"]
    mlp_along: Float[Tensor, "layers prompts"]
    of_added: Float[Tensor, "layers prompts"]

    def figure(self) -> Figure:
        """Median and quartiles of the prompts over the layers; the paper's range is shaded."""
        with figure("mlp-share", 9.2, 3.4) as drawing:
            axes = drawing.subplots()
            axes.axhspan(*PAPER, color=LINE, alpha=0.45, linewidth=0, label="the paper's 40 to 70 %")
            lines = {
                "MLP, ||G|| / ||z||": self.mlp,
                "attention, ||Attn|| / ||z||": self.attention,
                "MLP along z, <G, z> / ||z||²": self.mlp_along,
                "MLP of what is added, ||G|| / (||Attn|| + ||G||)": self.of_added,
            }
            for index, (label, shares) in enumerate(lines.items()):
                low, middle, high = quartiles(shares)
                axes.fill_between(self.layers, low, high, color=series(index)["color"], alpha=0.2, linewidth=0)
                axes.plot(self.layers, middle, **{**series(index), "markersize": 4}, label=label)
            axes.axhline(0, color=MUTED, linewidth=0.8)
            axes.set_xlabel("decoder layer")
            axes.locator_params(axis="x", integer=True)
            axes.set_ylabel("share")
            axes.grid(axis="y")
            drawing.legend(loc="outside right upper", fontsize="small")
            return drawing

    @property
    def caption(self) -> str:
        """Quantity, unit and source."""
        return (
            "What the MLP (G) and attention add to the residual stream, relative to the block's output z or to each "
            "other, by layer: median and quartiles over prompts of the mean over their tokens (paper: figure 3, left)."
        )

    @property
    def summary(self) -> str:
        """The range over layers, and how many of them are in the paper's."""
        medians = quartiles(self.mlp)[1]
        low, high = PAPER
        inside = int(((medians >= low) & (medians <= high)).sum())
        return (
            f"The MLP's share is {medians.min():.0%} to {medians.max():.0%} of the block's output, "
            f"{median(medians):.0%} in the median layer; in {inside} of {len(medians)} layers it is within the "
            f"{low:.0%} to {high:.0%} that the paper reports. Attention's is {_median_layer(self.attention):.0%}. The "
            f"MLP's part of what the block adds to its input is {_median_layer(self.of_added):.0%} in the median layer."
        )


def quartiles(values: Float[Tensor, "layers prompts"]) -> Float[Tensor, "3 layers"]:
    """The first, second and third quartile over the prompts; those that were not measured (NaN) do not count."""
    return torch.nanquantile(values, values.new_tensor([0.25, 0.5, 0.75]), dim=1)


def _median_layer(values: Float[Tensor, "layers prompts"]) -> float:
    return float(median(quartiles(values)[1]))


def mlp_share(subject: Subject, options: AnalysisOptions) -> MlpShare:
    """The shares on the base model; four numbers a layer and prompt are kept."""
    with subject.as_base() as model:
        hosts = at_sites(model, ("block", "mlp", "attention"), options.layers)
        layers = sorted({layer for _, layer in hosts})
        shares = torch.full((4, len(layers), len(subject.prompts)), torch.nan)
        for batch in batches(subject.prompts, batch_tokens=options.batch_tokens, skip_first=options.skip_first):
            found = hidden_states(model, batch, hosts)
            counts, prompts = batch.kept.sum(1).tolist(), list(batch.prompts)
            for row, layer in enumerate(layers):
                z, mlp, attention = (found[site, layer].float() for site in ("block", "mlp", "attention"))
                of_z, of_mlp, of_attention = (each.norm(dim=1) for each in (z, mlp, attention))
                along = (mlp * z).sum(1) / of_z.square()
                ratios = (of_mlp / of_z, of_attention / of_z, along, of_mlp / (of_mlp + of_attention))
                for kind, ratio in enumerate(ratios):
                    shares[kind, row, prompts] = torch.stack([each.mean() for each in ratio.cpu().split(counts)])
    return MlpShare(tuple(layers), *shares)


ANALYSIS = Analysis(title="The MLP's share of the block's output", measure=mlp_share)
