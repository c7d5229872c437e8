"""Saying where the prompt ends, for positions that depend on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from trimtab.tuners.steering.layer import SteeringLayer


@contextmanager
def prompt_lengths(model: nn.Module, lengths: Tensor | Sequence[int]) -> Iterator[None]:
    """Within the `with` block, the first `lengths[i]` real tokens of row i are its prompt.

    Needed only for positions other than `all`, where the model is called neither by `generate` nor with `labels`.
    For packed rows give one length for each sequence, in order. A model without such adapters ignores it.

    Args:
        model: a model with steering adapters.
        lengths: (rows,) whole numbers, padding not counted.

    Raises:
        ValueError: something else than a list of whole numbers. As many as there are rows they must be when the
            model is called.
    """
    lengths = torch.as_tensor(lengths)
    whole = not (lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool)
    if lengths.dim() != 1 or not whole or bool((lengths < 0).any()):
        raise ValueError(f"prompt_lengths={lengths.tolist()} must be one whole number, at least 0, for each row.")
    contexts = {id(m.context): m.context for m in model.modules() if isinstance(m, SteeringLayer)}
    with ExitStack() as stack:
        for context in contexts.values():
            stack.enter_context(context.prompt_lengths(lengths))
        yield
