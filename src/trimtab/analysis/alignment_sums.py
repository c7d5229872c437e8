"""The products that `alignment` compares, summed over the tokens of all prompts."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trimtab.analysis.base import AnalysisOptions
from trimtab.analysis.stream import Batch, at_sites, batches, hidden_states
from trimtab.analysis.subject import Subject
from trimtab.sites.base import Host
from trimtab.tuners.joint.stream_weights import stream_weights


class Reads:
    """Where a layer's z, G and Phi are, and W_d Phi and the norm's gain g where a norm follows."""

    def __init__(self, model: nn.Module, options: AnalysisOptions) -> None:
        """Find them in the layers that are analysed."""
        weights = stream_weights(model, "down_proj", options.layers)
        self.streams = at_sites(model, ("block", "mlp"), options.layers)
        self.features = {
            ("features", layer): Host(weight.name, "input", _columns(weight.module), layer=layer)
            for layer, weight in weights.items()
        }
        width = next(iter(self.streams.values())).width
        self.unnormed = {
            ("unnormed", layer): Host(weight.name, "output", width, layer=layer)
            for layer, weight in weights.items()
            if weight.norm is not None
        }
        self.gains = {
            layer: weight.norm(torch.ones(width, device=next(weight.norm.parameters()).device)).detach()  # rms(1) = 1
            for layer, weight in weights.items()
            if weight.norm is not None
        }
        self.sizes = {layer: width * (3 * width + host.width) for (_, layer), host in self.features.items()}

    def of(self, layers: list[int]) -> dict[tuple[str, int], Host]:
        """The hosts of some layers."""
        everything = {**self.streams, **self.features, **self.unnormed}
        return {key: host for key, host in everything.items() if key[1] in layers}


class Sums(NamedTuple):
    """Of one layer; its left-singular vectors are those of R X^T and so on."""

    residual: Float[Tensor, "d d"]  # R R^T
    with_stream: Float[Tensor, "d d"]  # R X^T
    with_output: Float[Tensor, "d d"]  # R Z^T
    with_features: Float[Tensor, "d m"]  # R Phi^T, or diag(g)^2 R Phi'^T


def products(subject: Subject, options: AnalysisOptions, reads: Reads, layers: list[int]) -> dict[int, Sums]:
    """The sums of some layers."""
    sums: dict[int, Sums] = {}
    for batch in batches(subject.prompts, batch_tokens=options.batch_tokens, skip_first=options.skip_first):
        with subject.as_base() as model:
            base = hidden_states(model, batch, reads.of(layers))
        tuned = _tuned_blocks(subject, batch, layers)
        for layer in layers:
            z = base["block", layer]
            wide = torch.float32 if z.device.type == "mps" else torch.float64
            residual = moving = (tuned[layer].to(z) - z).to(wide)
            features = base["features", layer].to(wide)
            if ("unnormed", layer) in base:
                features = features / base["unnormed", layer].to(wide).square().mean(1, keepdim=True).sqrt()
                moving = residual * reads.gains[layer].to(residual).square()
            stream = (z - base["mlp", layer]).to(wide)
            new = [residual.mT @ each for each in (residual, stream, z.to(wide))] + [moving.mT @ features]
            sums[layer] = Sums(*(a + b for a, b in zip(sums[layer], new, strict=True)) if layer in sums else new)
    return sums


def _tuned_blocks(subject: Subject, batch: Batch, layers: list[int]) -> dict[int, Tensor]:
    """The trained model's block outputs, by layer."""
    with subject.as_tuned() as model:
        found = hidden_states(model, batch, at_sites(model, ("block",), layers))
    return {layer: z for (_, layer), z in found.items()}


def _columns(matrix: Any) -> int:
    """How many numbers a linear layer reads; GPT-2's Conv1D calls it `nx`."""
    return int(matrix.nx if hasattr(matrix, "nx") else matrix.in_features)
