"""The two halves of a joint adapter in each layer, and what each adds to the stream in a forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from trimtab.interventions.low_rank import LowRank
from trimtab.sites import locate
from trimtab.tuners.steering.layer import CHILD_NAME, SteeringLayer


def halves(
    model: nn.Module, adapter_name: str, layers: Sequence[int] | None
) -> tuple[list[int], list[nn.Module], list[SteeringLayer]]:
    """Indices of the decoder layers, their MLPs and what steers them.

    Raises:
        ValueError: one of the halves is missing or merged, or the steering is not low-rank.
    """
    blocks = locate(model, "block", layers)
    mlps = [model.get_submodule(host.module) for host in locate(model, "mlp_input", layers)]
    steered = [_steering_of(model.get_submodule(host.module), host.layer) for host in blocks]
    for host, mlp, steering in zip(blocks, mlps, steered, strict=True):
        interventions = steering.steering_interventions
        if adapter_name not in interventions or not isinstance(interventions[adapter_name], LowRank):
            raise ValueError(f"The steering of layer {host.layer} by {adapter_name!r} is not low-rank.")
        if not _lora_in(mlp):
            raise ValueError(f"The MLP of layer {host.layer} has no LoRA: this measures joint adapters.")
        if any(each.merged for each in _lora_in(mlp)):
            raise ValueError("LoRA is merged into the weights: call unmerge_lora() first.")
    return [host.layer for host in blocks], mlps, steered


@contextmanager
def recorded(layers: Sequence[SteeringLayer], mlps: Sequence[nn.Module]) -> Iterator[dict[int, tuple[Tensor, Tensor]]]:
    """Within the `with` block, each layer's (adapter's shift, LoRA's shift), both (tokens, width), in float32."""
    lora: dict[int, Tensor] = {}
    pairs: dict[int, tuple[Tensor, Tensor]] = {}

    def of_mlp(index: int, mlp: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
        with _without_lora(mlp):
            lora[index] = _rows(output) - _rows(mlp.forward(*args, **kwargs))

    def of_steering(index: int, layer: nn.Module, args: Any, output: Tensor) -> None:
        pairs[index] = (_rows(output) - _rows(args[0]), lora.pop(index))

    handles = [mlp.register_forward_hook(partial(of_mlp, i), with_kwargs=True) for i, mlp in enumerate(mlps)]
    handles += [layer.register_forward_hook(partial(of_steering, i)) for i, layer in enumerate(layers)]
    try:
        yield pairs
    finally:
        for handle in handles:
            handle.remove()


def _steering_of(block: nn.Module, layer: int) -> SteeringLayer:
    steering = getattr(block, CHILD_NAME["output"], None)
    if not isinstance(steering, SteeringLayer):
        raise ValueError(f"Layer {layer} has no adapter at the site 'block'.")
    return steering


def _lora_in(module: nn.Module) -> list[LoraLayer]:
    return [each for each in module.modules() if isinstance(each, LoraLayer)]


@contextmanager
def _without_lora(module: nn.Module) -> Iterator[None]:
    """Within the `with` block, the LoRA layers in `module` compute what their base layers do."""
    changed = [each for each in _lora_in(module) if not each._disable_adapters]
    for each in changed:
        each._disable_adapters = True  # PEFT's own switch also turns requires_grad off
    try:
        yield
    finally:
        for each in changed:
            each._disable_adapters = False


def _rows(h: Tensor) -> Tensor:
    return h.detach().float().flatten(0, -2)
