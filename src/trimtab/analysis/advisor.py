"""Where to steer, from the gradient of the task's loss on the un-adapted model.

For each site and decoder layer

    G = sum over tokens of (dloss/dh) x^T           x = h, or h / rms(h) with `normalize`
    g = sum over tokens of (dloss/dh)

say how the loss begins to fall when a low-rank map or a vector is trained there; see `Advice` for the gain that its
singular values bound, and `trimtab.theory.first_order_gain` for the proof. This library's, not the paper's.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from peft import PeftModel, get_peft_model
from torch import Tensor
from transformers import PreTrainedModel

from trimtab.analysis.advice import RADII, RANKS, Advice
from trimtab.registry import check_choice
from trimtab.sites import decoder_layers, locate
from trimtab.theory.first_order_gain import BALLS
from trimtab.tuners.steering import SteeringConfig, SteeringLayer, SteeringModel
from trimtab.tuners.steering.gradient_sums import summed_gradients
from trimtab.tuners.steering.layer import CHILD_NAME

SITES = ("block", "mlp", "mlp_input", "attention")
"""What is compared if nothing else is asked for; `heads` can be."""

logger = logging.getLogger(__name__)

Losses = Callable[[PeftModel], Iterable[Tensor]]
"""Forward passes of the model that it is given, and what they lose: a new pass over the same batches at each call."""


@dataclass(frozen=True)
class _Place:
    """A site in a layer: the adapter of that name is the site's."""

    site: str
    layer: int
    steering: SteeringLayer
    width: int
    number_bytes: int

    @property
    def bytes(self) -> int:
        """Of its sums."""
        return self.number_bytes * self.width * (self.width + 1)


def advise(
    model: PreTrainedModel,
    losses: Losses,
    answer_tokens: int,
    *,
    sites: Sequence[str] = SITES,
    layers: Sequence[int] | None = None,
    normalize: bool = True,
    positions: str = "all",
    ball: str = "spectral",
    radius: str = "relative",
    kept: int = max(RANKS),
    memory_gb: float = 4.0,
) -> Advice:
    """Measure the first-order gain of adapters at each site and layer of `model`, which stays as it is.

    One forward and one backward pass over the batches. The sums of a site and layer of width d have d (d + 1) numbers
    in float32 (float64 for a model in float64) on the layer's device; where they need more than `memory_gb` together,
    the layers are taken in parts, with a pass for each. Activations are kept for one batch at a time.

    Args:
        model: a base without adapters, in any dtype but float16, whose gradients underflow.
        losses: of a few batches of the task; called once a pass, with the model to compute them on.
        answer_tokens: over how many tokens these losses are sums; gains are nats an answer token.
        sites: what is compared.
        layers: indices of decoder layers; None: all.
        normalize: maps read h / rms(h), as in `post-block-normalized`. False: h, as in `post-block`; then the few
            tokens with massive activations, mostly the first, weigh most.
        positions: which tokens are steered, as in `SteeringConfig`.
        ball: the norm that bounds what is written, "spectral" or "frobenius"; see `Advice`.
        radius: how long it may be, "relative" to the hidden states or "absolute"; see `Advice`.
        kept: how many singular values are kept, which is the largest rank that can be asked for.
        memory_gb: 10^9 bytes for the sums.

    Raises:
        ValueError: a model with adapters or in float16, an unknown name, a layer that is not there or twice, no losses
            or one that is not finite.
    """
    if isinstance(model, PeftModel):
        raise ValueError("The model already carries an adapter: pass the base, model.unload().")
    if model.dtype == torch.float16:
        raise ValueError("Gradients underflow in float16: load the model in bfloat16 or float32.")
    check_choice("ball", ball, BALLS)
    check_choice("radius", radius, RADII)
    if answer_tokens < 1 or kept < 1 or memory_gb <= 0:
        raise ValueError(f"{answer_tokens=}, {kept=} and {memory_gb=} must be positive.")
    names = tuple(dict.fromkeys(sites))
    hosts = {site: locate(model, site, layers) for site in names}
    if not hosts:
        raise ValueError("sites is empty: name at least one.")
    configs = {
        site: SteeringConfig(
            r=1,
            site=site,
            layers=None if layers is None else list(layers),
            normalize=normalize,
            positions=positions,
        )
        for site in names
    }
    spectra: dict[tuple[str, int], Tensor] = {}
    vectors: dict[tuple[str, int], tuple[float, float]] = {}
    total = 0.0
    with _with_fresh_adapters(model, configs) as tuned:
        each = torch.promote_types(model.dtype, torch.float32).itemsize
        places = [
            _Place(site, host.layer, getattr(model.get_submodule(host.module), CHILD_NAME[host.side]), host.width, each)
            for site in names
            for host in hosts[site]
        ]
        parts = _parts(places, memory_gb)
        logger.info(
            "sums for %d sites x %d layers: %.2f GB in %d pass(es)",
            len(names),
            len(hosts[names[0]]),
            sum(place.bytes for place in places) / 1e9,
            len(parts),
        )
        for part in parts:
            with summed_gradients([(place.steering, place.site) for place in part]) as sums:
                total = _backward(losses(tuned), tuned)
            if len(sums) < len(part):
                raise ValueError("There are no losses, or they do not depend on the model's hidden states.")
            for index, place in enumerate(part):
                at = sums.pop(index)
                key = (place.site, place.layer)
                spectra[key] = _leading(at.matrix, kept) / answer_tokens
                vectors[key] = float(torch.linalg.vector_norm(at.vector)) / answer_tokens, at.typical_length
    indices = [host.layer for host in hosts[names[0]]]
    norms_and_lengths = torch.tensor(
        [[vectors[site, layer] for layer in indices] for site in names], dtype=torch.float64
    )
    return Advice(
        sites=names,
        layers=tuple(indices),
        model_layers=len(decoder_layers(model)[1]),
        widths=tuple(hosts[site][0].width for site in names),
        singular_values=tuple(torch.stack([spectra[site, layer] for layer in indices]) for site in names),
        vector_norms=norms_and_lengths[..., 0],
        lengths=norms_and_lengths[..., 1],
        loss=total / answer_tokens,
        answer_tokens=answer_tokens,
        normalize=normalize,
        positions=positions,
        ball=ball,
        radius=radius,
    )


@contextmanager
def _with_fresh_adapters(model: PreTrainedModel, configs: dict[str, SteeringConfig]) -> Iterator[PeftModel]:
    """`model` in evaluation mode with an adapter that changes nothing at each site; afterwards as it was."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    (first, config), *others = configs.items()
    tuned = get_peft_model(model, config, adapter_name=first)
    try:
        for name, other in others:
            tuned.add_adapter(name, other)
        cast(SteeringModel, tuned.base_model).set_adapter(list(configs))
        yield tuned.eval()
    finally:
        tuned.unload()
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        for module, mode in modes:
            module.training = mode


def _parts(places: Sequence[_Place], memory_gb: float) -> list[list[_Place]]:
    """The places in their order, as many at a time as fit into the memory, at least one."""
    parts: list[list[_Place]] = [[]]
    for place in places:
        if parts[-1] and sum(each.bytes for each in (*parts[-1], place)) > memory_gb * 1e9:
            parts.append([])
        parts[-1].append(place)
    return parts


def _backward(losses: Iterable[Tensor], tuned: PeftModel) -> float:
    """Go back through each loss; gives their sum and leaves no gradients of parameters."""
    total = 0.0
    try:
        for loss in losses:
            value = float(loss.detach())
            if not math.isfinite(value):
                raise ValueError(f"The loss of the un-adapted model is {value} on these examples.")
            loss.backward()
            total += value
    finally:
        for parameter in tuned.parameters():
            if parameter.requires_grad:  # the base's own, if it has some, are not ours
                parameter.grad = None
    return total


def _leading(matrix: Float[Tensor, "d d"], kept: int) -> Float[Tensor, " k"]:
    """The largest singular values, on the CPU in float64."""
    return torch.linalg.svdvals(matrix)[:kept].cpu().double()
