"""The gradient of the loss with respect to a map at a site, summed over tokens while batches go by."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trimtab.linalg import at_least_float32
from trimtab.tuners.steering.layer import SteeringLayer


@dataclass(frozen=True)
class GradientSums:
    """How the loss depends on a shift M x + v of what an adapter steers, at M = 0 and v = 0.

    The stream receives m h of a site's tensor h, with m the family's multiplier (1 but for Granite). An adapter
    shifts m h, and reads x = m h or, with `normalize`, m h / rms(m h):

        matrix = dloss/dM = sum over steered tokens of (1/m) (dloss/dh) x^T
        vector = dloss/dv = sum over steered tokens of (1/m) (dloss/dh)
        log_lengths = sum over the same tokens of (log ||m h||, 1), as far as the loss depends on them

    In float32, or in float64 where the model is, on the layer's device.
    """

    matrix: Float[Tensor, "d d"]
    vector: Float[Tensor, " d"]
    log_lengths: Float[Tensor, " 2"]

    @property
    def typical_length(self) -> float:
        """The geometric mean of ||m h||, on which a few tokens with massive activations have little weight."""
        total, count = self.log_lengths.tolist()
        return math.exp(total / count) if count else 0.0


@contextmanager
def summed_gradients(places: Sequence[tuple[SteeringLayer, str]]) -> Iterator[dict[int, GradientSums]]:
    """Within the `with` block, backward passes add up the sums of each place, by its index.

    What is kept is d (d + 1) + 2 numbers a place, however many tokens go by; a place that no backward pass comes by
    has no sums. Padding adds nothing, because no loss depends on it.

    Args:
        places: a steering layer and the adapter on it whose positions and whose x are meant. The adapter has to be
            active, with a strength that is not 0, and to change nothing yet.
    """
    sums: dict[int, GradientSums] = {}

    def add(index: int, h: Tensor, steered_tokens: Tensor | None, grad: Tensor) -> None:
        layer, name = places[index]
        multiplier = layer.multipliers[name]
        if steered_tokens is not None:  # left out, not multiplied with 0: an unsteered token may have overflowed
            h, grad = h[steered_tokens], grad[steered_tokens]
        added = h if multiplier == 1.0 else h * multiplier
        x = at_least_float32(layer.intervention(name).reads(added)).flatten(0, -2)
        g = at_least_float32(grad).flatten(0, -2) / multiplier
        if index not in sums:
            shapes = ((g.shape[1], x.shape[1]), (g.shape[1],), (2,))
            sums[index] = GradientSums(*(g.new_zeros(shape) for shape in shapes))
        sums[index].matrix.addmm_(g.T, x)
        sums[index].vector.add_(g.sum(0))
        matters = g.any(dim=1)  # not on padding, nor in the last layer on what no label is predicted from
        lengths = torch.linalg.vector_norm(at_least_float32(added).flatten(0, -2), dim=1)
        logs = lengths.clamp_min(torch.finfo(g.dtype).tiny).log() * matters
        sums[index].log_lengths.add_(torch.stack([logs.sum(), matters.sum()]))

    def remember(index: int, module: nn.Module, args: tuple[Any, ...], steered: Tensor) -> None:
        if not steered.requires_grad:
            return  # a forward pass that nobody will go back through
        layer, name = places[index]
        h: Tensor = args[0].detach()
        steered.register_hook(partial(add, index, h, layer.context.selected(layer.policies[name], h)))

    handles = [layer.register_forward_hook(partial(remember, index)) for index, (layer, _) in enumerate(places)]
    try:
        yield sums
    finally:
        for handle in handles:
            handle.remove()
