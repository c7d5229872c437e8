"""How a training ends: with finite weights or not, and at what cost of memory."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterable

import torch
from torch import Tensor

from trimtab.methods import Method


def diverged(loss: Tensor, step: int, learning_rate: float) -> FloatingPointError:
    """The error for a loss that is not finite."""
    return FloatingPointError(
        f"The loss is {loss.item()} at step {step} with learning rate {learning_rate:.3g}: the training diverged. "
        "Try a smaller learning rate."
    )


def require_finite(parameters: Iterable[tuple[str, Tensor]], method: Method) -> None:
    """Refuse trained weights that are not finite.

    Args:
        parameters: names and values; what takes no gradients is not looked at.
        method: by which they were trained.

    Raises:
        FloatingPointError: it names the first of them.
    """
    for name, parameter in parameters:
        if parameter.requires_grad and not torch.isfinite(parameter).all():
            raise FloatingPointError(
                f"{name} is not finite after the last step with learning rate {method.learning_rate:.3g}: "
                "the training diverged. Try a smaller learning rate."
            )


def peak_memory(device: torch.device) -> int:
    """The most memory in use so far, in bytes: of the GPU, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
