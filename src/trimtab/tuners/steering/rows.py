"""Saying which rows of a batch go through which adapter, in training too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from trimtab.registry import check_choice
from trimtab.tuners.steering.layer import BASE_ROW, SteeringLayer


@contextmanager
def adapter_rows(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Within the `with` block, each row of a batch goes through its own adapter and through no other.

    For inference PEFT's `model(..., adapter_names=[...])` does the same. Here the model may be in training mode:
    several adapters learn on one frozen base at a time, each from its own rows (`trimtab.training.train_together`).
    With gradient checkpointing, the backward pass belongs into the block, because it runs layers again.

    Args:
        model: with steering adapters, none of which is merged.
        names: adapters, of one row each; or fewer than there are rows, of equally many that follow each other.
            "__base__" is the base alone. An adapter must be active to be trained, active or not to be used.

    Raises:
        ValueError: the model has no such adapter, or an adapter is merged. When the model is called: the rows cannot be
            split evenly.
    """
    layers = [module for module in model.modules() if isinstance(module, SteeringLayer)]
    known = {name for layer in layers for name in layer.steering_interventions}
    for name in names:
        if name != BASE_ROW:
            check_choice("adapter", name, known)
    if any(layer.merged for layer in layers):
        raise ValueError("Rows cannot have adapters of their own while one is merged into the base: unmerge it first.")
    contexts = {id(layer.context): layer.context for layer in layers}.values()
    outer = [context.adapter_rows for context in contexts]
    for context in contexts:
        context.adapter_rows = tuple(names)
    try:
        yield
    finally:
        for context, before in zip(contexts, outer, strict=True):
            context.adapter_rows = before
