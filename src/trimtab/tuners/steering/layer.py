"""The steering of one host module: a child module beside its own children, and one hook on the host.

The host is neither wrapped nor replaced. A wrapper would rename the base model's keys, break a LoRA that is added
later, and hide the steered stream from `output_hidden_states`, which transformers records by class.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, cast

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn

from trimtab.interventions import Intervention, get_intervention
from trimtab.interventions.base import Heads
from trimtab.positions import PositionPolicy
from trimtab.tuners.steering.config import SteeringConfig
from trimtab.tuners.steering.files import INTERVENTIONS
from trimtab.tuners.steering.merging import add_to_bias, forget, is_finite_with, take_from_bias
from trimtab.tuners.steering.tokens import TokenContext

CHILD_NAME = {"output": "steering", "input": "input_steering"}
"""Name of the child by the side of the host that it steers; PEFT skips names that contain the prefix `steering_`."""

BASE_ROW = "__base__"
"""PEFT's name, in `adapter_names`, for a row that runs on the base model."""


class SteeringLayer(nn.Module, BaseTunerLayer):
    """All adapters that steer one side of one host module:  h <- h + sum_i s_i * shift_i(h)."""

    adapter_layer_names = (INTERVENTIONS,)
    host: nn.Module

    def __init__(self, host: nn.Module, side: str, context: TokenContext) -> None:
        """Attach to `host` as a child and by a hook; steers nothing before `update_layer`."""
        super().__init__()
        self.steering_interventions = nn.ModuleDict()
        self.side = side
        self.context = context
        # By the names of the interventions: an adapter that steers elsewhere only is in none of these.
        self.strengths: dict[str, float] = {}
        self.policies: dict[str, PositionPolicy] = {}
        self.multipliers: dict[str, float] = {}
        self.bias_owners: dict[str, Any] = {}
        self.training_step = 0  # of the optimiser, for penalties that follow a schedule
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        # Not registered: the host is this module's parent.
        object.__setattr__(self, "host", host)
        host.add_module(CHILD_NAME[side], self)
        if side == "output":
            self._handle = host.register_forward_hook(_steer_output, prepend=True)
        else:
            self._handle = host.register_forward_pre_hook(_steer_input, with_kwargs=True)

    def detach(self) -> None:
        """Remove the hook and the child: the host is as it was."""
        self._handle.remove()
        delattr(self.host, CHILD_NAME[self.side])
        for name in self.merged_adapters:
            forget(self.bias_owners[name])

    def intervention(self, adapter_name: str) -> Intervention:
        """The intervention of one adapter."""
        return cast(Intervention, self.steering_interventions[adapter_name])

    def get_base_layer(self) -> nn.Module:
        """The host."""
        return self.host

    def update_layer(
        self,
        adapter_name: str,
        config: SteeringConfig,
        width: int,
        multiplier: float = 1.0,
        bias_owner: nn.Module | None = None,
        heads: Heads | None = None,
    ) -> None:
        """Add an adapter.

        Args:
            adapter_name: its name.
            config: its configuration.
            width: last dimension of the steered tensor.
            multiplier: what the family multiplies the tensor with before it adds it to the stream; the
                intervention reads and shifts the product.
            bias_owner: a module whose bias is added to the steered tensor, for merging.
            heads: which attention heads of the tensor are edited, for interventions on heads.
        """
        self.in_features = self.out_features = width  # PEFT's words for what its layers read and write
        intervention = get_intervention(config.intervention)(width, replace(config.options, heads=heads))
        # New modules are in training mode, a loaded base is not; some interventions draw numbers in training mode.
        self.steering_interventions[adapter_name] = intervention.train(self.host.training)
        self.strengths[adapter_name] = float(config.strength)
        self.policies[adapter_name] = config.policy
        self.context.listens = self.context.listens or not config.policy.everything
        self.multipliers[adapter_name] = multiplier
        self.bias_owners[adapter_name] = bias_owner
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def delete_adapter(self, adapter_name: str) -> None:
        """As PEFT's; the settings of the adapter go with it."""
        super().delete_adapter(adapter_name)
        for settings in (self.strengths, self.policies, self.multipliers, self.bias_owners):
            settings.pop(adapter_name, None)

    def forward(self, h: Tensor) -> Tensor:
        """The steered hidden states, in the dtype of `h`; `h` itself if nothing steers it."""
        if self._disable_adapters:
            return h
        if self.context.adapter_rows is not None:
            return self._steer_rows(h)
        # No helper between here and the arithmetic: when a single token is decoded, their calls add up.
        steered = None
        for name in self.active_adapters:
            if not self.strengths.get(name) or name in self.merged_adapters:
                continue
            policy = self.policies[name]  # `selected` knows `everything` too; not to ask it saves a call
            tokens = None if policy.everything else self.context.selected(policy, h)
            shifted = self._steer(name, h, tokens)
            steered = shifted if steered is None else steered + (shifted - h)  # of the unsteered h, in any order
        return h if steered is None else steered

    def _steer_rows(self, h: Tensor) -> Tensor:
        """Each group of rows by its own adapter.

        Split and put together again, whose gradients are each other: those of slices would each be as large as h.
        """
        groups = self.context.row_groups(h)
        steered = {name for name, _ in groups if self.strengths.get(name) and name not in self.merged_adapters}
        if not steered:
            return h
        parts, start = [], 0
        for (name, rows), part in zip(groups, h.split([rows for _, rows in groups]), strict=True):
            if name in steered:
                tokens = self.context.selected(self.policies[name], h)
                part = self._steer(name, part, None if tokens is None else tokens[start : start + rows])
            parts.append(part)
            start += rows
        return torch.cat(parts)

    def _steer(self, name: str, h: Tensor, tokens: Tensor | None) -> Tensor:
        # `self.intervention(name)`, without three calls that add up when a single token is decoded.
        intervention: Any = self._modules[INTERVENTIONS]._modules[name]  # type: ignore[union-attr]
        strength, multiplier = self.strengths[name], self.multipliers[name]
        if multiplier == 1.0:
            return intervention.steer(h, strength, tokens)
        added = h * multiplier
        return h + (intervention.steer(added, strength, tokens) - added) / multiplier

    def why_not_mergeable(self, adapter_name: str) -> str | None:
        """Why an adapter cannot become part of the base model's weights; None if it can."""
        intervention = self.intervention(adapter_name)
        if intervention.constant_shift() is None:
            return f"the shift of {intervention.name!r} depends on the hidden state"
        if not self.policies[adapter_name].everything:
            return "it steers some positions only"
        owner = self.bias_owners[adapter_name]
        if owner is None or getattr(owner, "bias", None) is None:
            return "the steered tensor has no bias of its own to take the vector"
        return None

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add strength * v to the bias in front of the steered tensor.

        Raises:
            ValueError: this shift cannot be merged, or (`safe_merge`) the sum is not finite.
        """
        for name in check_adapters_to_merge(self, adapter_names):
            if name not in self.steering_interventions:
                continue
            if reason := self.why_not_mergeable(name):
                raise ValueError(f"Cannot merge the adapter {name!r}: {reason}.")
            owner = self.bias_owners[name]
            constant = cast(Tensor, self.intervention(name).constant_shift()).data
            shift = self.strengths[name] * constant / self.multipliers[name]
            if safe_merge and not is_finite_with(owner, shift):
                # PEFT's words for all its methods
                broken = f"The adapter {name} seems to be broken"
                raise ValueError(f"NaNs detected in the merged weights. {broken}")
            add_to_bias(owner, (self, name), shift)
            self.merged_adapters.append(name)

    def unmerge(self) -> None:
        """Give the base model its own biases back, bit for bit."""
        if not self.merged_adapters:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        while self.merged_adapters:
            name = self.merged_adapters.pop()
            take_from_bias(self.bias_owners[name], (self, name))

    def enable_adapters(self, enabled: bool) -> None:
        """As PEFT's; disabling unmerges now: when the hook runs, the host has added its bias already."""
        if not enabled and self.merged_adapters:
            self.unmerge()
        super().enable_adapters(enabled)

    def cast_to_host(self, adapter_name: str) -> None:
        """Give an adapter the dtype of the host, half precision included."""
        if adapter_name in self.steering_interventions:
            _, dtype = self._host_device_and_dtype()
            self.steering_interventions[adapter_name].to(dtype)

    def _get_base_layer_device_and_dtype(self, base_layer: nn.Module) -> tuple[Any, Any]:
        """Where PEFT puts a new adapter: on the host's device, in its dtype but at least in float32."""
        device, dtype = self._host_device_and_dtype()
        return device, dtype if dtype is None else torch.promote_types(dtype, torch.float32)

    def _host_device_and_dtype(self) -> tuple[Any, Any]:
        """Device and dtype of the host's first floating-point parameter that is no adapter's.

        A decoder layer has no `.weight`, and a quantised one has parameters in integer dtypes.
        """
        device = None
        for name, parameter in self.host.named_parameters():
            if INTERVENTIONS in name:
                continue
            if parameter.is_floating_point():
                return parameter.device, parameter.dtype
            device = parameter.device if device is None else device
        return device, None


def _steer_output(host: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    """The hook on a host's output: a tensor, or a tuple or list that begins with the hidden states."""
    steering: Any = host.steering
    if isinstance(output, Tensor):
        return steering(output)
    if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        return type(output)([steering(output[0]), *output[1:]])
    raise TypeError(f"The output of {type(host).__name__} is a {type(output).__name__}, which has no hidden states.")


def _steer_input(host: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """The hook on a host's input: its first argument, or the keyword `hidden_states`."""
    steering = cast(SteeringLayer, host.input_steering)
    if args:
        return (steering(args[0]), *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": steering(kwargs["hidden_states"])}
