"""Which layers are summed over together, which are drawn, and the middle one."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

from torch import Tensor

Key = TypeVar("Key", bound=Hashable)

PANELS = 4
"""A figure with a panel or a line a layer shows at most this many."""


def within_memory(sizes: Mapping[Key, int], memory_gb: float) -> Iterator[list[Key]]:
    """Groups of keys, in order, whose sums fit into memory together: the prompts are read once for each group.

    Args:
        sizes: how many float64 numbers the sums of a key have.
        memory_gb: 10^9 bytes; a key that is larger has a group to itself.
    """
    group: list[Key] = []
    numbers = 0
    for key, size in sizes.items():
        if group and 8 * (numbers + size) > memory_gb * 1e9:
            yield group
            group, numbers = [], 0
        group.append(key)
        numbers += size
    if group:
        yield group


def spread(values: Sequence[Key], count: int = PANELS) -> list[Key]:
    """At most `count` of the values (at least two), evenly spaced, the first and the last among them."""
    if len(values) <= count:
        return list(values)
    return [values[round(index * (len(values) - 1) / (count - 1))] for index in range(count)]


def median(values: Tensor, dim: int | None = None) -> Tensor:
    """The median; of an even number of values the mean of the middle two, where torch's own takes the lower one.

    Args:
        values: NaN is left out.
        dim: None: of all values.
    """
    return values.nanquantile(0.5, dim=dim)
