"""Batches that hold the same number of examples in several orders, one order behind the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor


class ByIndices(torch.utils.data.Dataset[list[dict[str, Any]]]):
    """Examples by several indices at once."""

    def __init__(self, rows: Dataset) -> None:
        """Of `rows`."""
        self._rows = rows

    def __len__(self) -> int:
        """The number of examples."""
        return len(self._rows)

    def __getitem__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The examples at `indices`, one of each order."""
        return [self._rows[index] for index in indices]


def collate_orders(
    collate: Callable[[list[dict[str, Any]]], dict[str, Tensor]], items: list[list[dict[str, Any]]]
) -> dict[str, Tensor]:
    """A batch of all orders, one behind the other."""
    return collate([item[order] for order in range(len(items[0])) for item in items])


def by_order(rows: Tensor, orders: int) -> Tensor:
    """(orders, rows of each, tokens) of what `collate_orders` has put one behind the other."""
    return rows.view(orders, -1, rows.shape[-1])
