"""A start that knows the task: the reading side looks where the loss would be lowered first."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from trimtab.interventions import Intervention
from trimtab.linalg import leading_right_vectors
from trimtab.tuners.steering.gradient_sums import summed_gradients
from trimtab.tuners.steering.layer import SteeringLayer


def start_from_gradient(model: nn.Module, losses: Iterable[Tensor], adapter_name: str = "default") -> None:
    """Point the reading side of a fresh adapter at the directions on which the loss depends first.

    A linear map M of what the adapter reads, added at a site, changes the loss to first order by <G, M> with

        G = sum over steered tokens of (dloss/dh) x^T        x = h, or h / rms(h) with `normalize`

    Of all maps of rank r and given size, that which lowers it most has the r first right-singular vectors of G for its
    row space. They become the rows of W_down, each with the length that a row has in the Kaiming-uniform start,
    init_scale / sqrt(3). W_up stays zero: the adapter is a no-op still. This library's, not the paper's.

    G is d x d and kept in float32 for every steered module while this runs.

    Args:
        model: with the adapter, active and fresh.
        losses: the losses of some batches, computed one after another as this asks for them (a generator), each of a
            forward pass of `model`. A few dozen examples do; scale and sign of the sum do not matter.
        adapter_name: the adapter.

    Raises:
        ValueError: no losses, an adapter that is not on the model, or one that reads by no low-rank factor, or whose
            factor is under a constraint.
    """
    layers = _layers(model, adapter_name)
    factors = [_reading_factor(layer.intervention(adapter_name)) for layer in layers]
    with summed_gradients([(layer, adapter_name) for layer in layers]) as sums:
        for loss in losses:
            loss.backward()
    for parameter in model.parameters():
        parameter.grad = None
    if len(sums) < len(layers):
        raise ValueError(
            f"Of {len(layers)} steered modules {len(layers) - len(sums)} saw no gradient: give at least one loss, of a "
            f"forward pass in which the adapter {adapter_name!r} is active and its strength is not 0."
        )
    for index, factor in enumerate(factors):
        rows = leading_right_vectors(sums[index].matrix, len(factor))
        scale = layers[index].intervention(adapter_name).options.init_scale / math.sqrt(3)
        with torch.no_grad():
            factor.copy_(scale * rows)


def copy_start(model: nn.Module, source: str, target: str) -> None:
    """Start a fresh adapter as another of the same configuration, which `start_from_gradient` has pointed already.

    Raises:
        ValueError: an adapter that is not on the model, or another configuration.
    """
    layers = _layers(model, target)
    if layers != _layers(model, source):
        raise ValueError(f"The adapters {source!r} and {target!r} steer different modules.")
    pairs = [[_reading_factor(layer.intervention(name)) for name in (target, source)] for layer in layers]
    if any(own.shape != other.shape for own, other in pairs):
        raise ValueError(f"The adapters {source!r} and {target!r} have different ranks.")
    with torch.no_grad():
        for own, other in pairs:
            own.copy_(other)


def _layers(model: nn.Module, adapter_name: str) -> list[SteeringLayer]:
    """What the adapter steers."""
    layers = [
        module
        for module in model.modules()
        if isinstance(module, SteeringLayer) and adapter_name in module.steering_interventions
    ]
    if not layers:
        raise ValueError(f"The model has no steering adapter {adapter_name!r}.")
    return layers


def _reading_factor(intervention: Intervention) -> nn.Parameter:
    """W_down (r, d) of an intervention that has one."""
    if len(intervention.read) != 1 or not intervention.starts_as_noop:
        raise ValueError(
            f"The intervention {intervention.name!r} cannot start from the gradient: it needs one factor that "
            "reads, and a start that changes nothing. Use 'low_rank', or leave init_weights at True."
        )
    (name,) = intervention.read
    if parametrize.is_parametrized(intervention, name):
        raise ValueError("A reading factor under a constraint cannot start from the gradient.")
    factor: nn.Parameter = getattr(intervention, name)
    return factor
