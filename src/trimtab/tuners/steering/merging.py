"""Merging a constant shift into a bias of the base model, and taking it out again bit for bit.

Several shifts may go into one bias (two adapters; the block's and the MLP's site share one), and come out in
any order. So nothing is subtracted: the bias is written anew from its original and the shifts still in it.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

_RECORD = "_steering_merges"


@dataclass
class _Merges:
    """What a bias was, and what has been added to it."""

    original: Tensor
    shifts: dict[Hashable, Tensor] = field(default_factory=dict)

    def total(self) -> Tensor:
        total = self.original
        for shift in self.shifts.values():
            total = total + shift.to(total.dtype)
        return total


def add_to_bias(owner: Any, key: Hashable, shift: Tensor) -> None:
    """Add `shift` to the bias of the module `owner`; `key` names it for `take_from_bias`."""
    record = owner.__dict__.setdefault(_RECORD, _Merges(owner.bias.data))
    record.shifts[key] = shift.detach().clone()
    owner.bias.data = record.total()


def take_from_bias(owner: Any, key: Hashable) -> None:
    """Take the shift called `key` out again; with the last one, the bias is the original."""
    record = owner.__dict__[_RECORD]
    del record.shifts[key]
    owner.bias.data = record.total()
    if not record.shifts:
        forget(owner)


def forget(owner: Any) -> None:
    """Keep the bias as it is, for good."""
    owner.__dict__.pop(_RECORD, None)


def is_finite_with(owner: Any, shift: Tensor) -> bool:
    """Whether the bias of `owner` would be finite with `shift` added."""
    return bool(torch.isfinite(owner.bias.data + shift.to(owner.bias.dtype)).all())
