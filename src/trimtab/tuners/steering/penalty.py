"""Penalties of adapters (LoFiT's L1, JoLA's L0), and how they come into the loss.

A model that computes its own loss from labels adds them to it, by one hook on the model and only in training mode with
gradients. Each supervised token's loss gets the whole penalty: a mean over tokens then holds it once, and so does a
mean over several micro-batches, however a trainer divides (see `_share`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Partial
from transformers import TrainerCallback
from transformers.loss.loss_utils import LOSS_MAPPING, ForCausalLMLoss

from trimtab.interventions import Intervention
from trimtab.tuners.steering.layer import SteeringLayer

_HANDLE = "_steering_penalty"
_IGNORED = -100


def penalty(model: nn.Module) -> Tensor:
    """The sum of the penalties of a model's active adapters, a scalar; zero where none has one.

    A model that is called with labels adds it to its loss by itself. Add it to a loss that is computed outside of the
    model (DPO, GRPO, a loss on logits): `loss = loss + trimtab.penalty(model)`, divided by the number of micro-batches
    of an optimiser step if the loss is too.

    Args:
        model: a model with steering adapters, possibly wrapped.
    """
    terms = list(_terms(model))
    if not terms:
        parameter = next(model.parameters(), None)
        return torch.zeros((), device=None if parameter is None else parameter.device)
    total = torch.stack([term.to(terms[0].device) for term in terms]).sum()
    return _whole(total) if isinstance(total, DTensor) else total


def has_penalty(model: nn.Module) -> bool:
    """Whether an active adapter of the model has a penalty."""
    return next(_terms(model), None) is not None


def adapter_has_penalty(model: nn.Module, adapter_name: str) -> bool:
    """Whether an adapter of the model has a penalty, active or not."""
    return any(
        layer.intervention(adapter_name).penalty(0) is not None
        for layer in model.modules()
        if isinstance(layer, SteeringLayer) and adapter_name in layer.steering_interventions
    )


def set_penalty_step(model: nn.Module, step: int) -> None:
    """Tell the adapters how many optimiser steps are done, for penalties that follow a schedule (JoLA's).

    `trimtab.training.train` does it. In a loop of your own call it once a step, and give other trainers the callback
    `PenaltyStep`. Without it the schedule stays at its first value.

    Args:
        model: a model with steering adapters, possibly wrapped.
        step: 0 before the first one.

    Raises:
        ValueError: it is negative.
    """
    if step < 0:
        raise ValueError(f"The step {step!r} must be at least 0.")
    for layer in _layers(model):
        layer.training_step = step


class PenaltyStep(TrainerCallback):
    """Gives the adapters the step of a transformers or TRL trainer, also when it resumes from a checkpoint."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Set the step that is about to be computed."""
        set_penalty_step(kwargs["model"], state.global_step)


def add_penalty_to_loss(model: nn.Module) -> None:
    """Let `model` add the penalty to the loss that it computes; doing it twice changes nothing."""
    if _HANDLE not in model.__dict__:
        model.__dict__[_HANDLE] = model.register_forward_hook(_add_penalty, with_kwargs=True)


def leave_loss_alone(model: nn.Module) -> None:
    """Undo `add_penalty_to_loss`."""
    handle = model.__dict__.pop(_HANDLE, None)
    if handle is not None:
        handle.remove()


def _add_penalty(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    """The hook: `output` with the penalty in its loss."""
    if not (model.training and torch.is_grad_enabled() and has_penalty(model)):
        return output
    if kwargs.get("shift_labels") is None and kwargs.get("labels") is None:
        return output
    if isinstance(output, tuple):
        return (output[0] + _share(model, kwargs) * penalty(model), *output[1:])
    if output.get("log_probs") is not None:
        return _add_to_log_probabilities(model, output)
    if output.get("loss") is not None:
        output["loss"] = output["loss"] + _share(model, kwargs) * penalty(model)
    return output


def _share(model: nn.Module, kwargs: dict[str, Any]) -> Tensor | float:
    """What part of the step's tokens this micro-batch has; 1 where the loss is its own mean.

    transformers' Trainer passes `num_items_in_batch`, the supervised tokens of all micro-batches (and processes) of a
    step, and adds up losses that are divided by it. Without it the Trainer averages micro-batches itself.
    """
    items = kwargs.get("num_items_in_batch")
    if items is None:
        return 1.0
    if kwargs.get("shift_labels") is not None:
        labels = kwargs["shift_labels"]
    else:
        loss_type = getattr(model, "loss_type", None)
        shifted = loss_type is not None and LOSS_MAPPING.get(loss_type) is ForCausalLMLoss
        labels = kwargs["labels"][..., 1:] if shifted else kwargs["labels"]
    share: Tensor = (labels != _IGNORED).sum() / items
    return share


def _add_to_log_probabilities(model: nn.Module, output: Any) -> Any:
    """TRL's trainers call the model with labels and take log-probabilities of tokens from it, not the loss.

    SFTTrainer's loss is their negative mean, so they take the penalty. What other trainers compute from them is no
    mean over tokens. SFTTrainer is told by what it asks for: whether a token is the likeliest, and no mean logits.
    """
    if output.get("is_top1") is not None and output.get("mean_logits") is None:
        output["log_probs"] = output["log_probs"] - output["label_mask"] * penalty(model)
    else:
        warnings.warn(
            "The loss is computed outside of the model, so the adapter's penalty is not part of it: add "
            "trimtab.penalty(model) to it.",
            stacklevel=2,
        )
    return output


def _whole(total: DTensor) -> Tensor:
    """A sum over sharded parameters (FSDP2), for a loss, which is not sharded.

    FSDP2 averages the gradients of the processes' losses. This one goes to the shards directly, and a process's shard
    would get the gradient of that process's loss alone.
    """
    mesh = total.device_mesh
    whole = total.full_tensor()

    def average(gradient: Tensor) -> Tensor:
        parts = DTensor.from_local(gradient, mesh, [Partial()] * mesh.ndim)
        return parts.full_tensor() / mesh.size()

    if whole.requires_grad:
        whole.register_hook(average)
    return whole


def _terms(model: nn.Module) -> Iterator[Tensor]:
    """The penalty of each intervention that is active and trained."""
    for layer in _layers(model):
        if layer.disable_adapters:
            continue
        for name in layer.active_adapters:
            if name in layer.steering_interventions and layer.strengths[name] != 0.0:
                intervention: Intervention = layer.intervention(name)
                trained = any(parameter.requires_grad for parameter in intervention.parameters())
                term = intervention.penalty(layer.training_step) if trained else None
                if term is not None:
                    yield term


def _layers(model: nn.Module) -> Iterator[SteeringLayer]:
    return (module for module in model.modules() if isinstance(module, SteeringLayer))
