"""How much memory tensors take, for tests of what must not grow."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Peak(TorchDispatchMode):
    """Within `with`, the largest number of bytes that live tensors made there had at a time: `peak`.

    Counted are whole storages, from the operation that made them until they are freed; what was there before is not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count what it returns, unless that is its input or a view of it."""
        given = {storage._cdata for storage in _storages((args, kwargs))}
        output = func(*args, **(kwargs or {}))
        for storage in _storages(output):
            key = storage._cdata
            if key not in given and key not in self._sizes:
                self._sizes[key] = storage.nbytes()
                self.live += self._sizes[key]
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._drop, key)
        return output

    def _drop(self, key: int) -> None:
        self.live -= self._sizes.pop(key, 0)


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [each.untyped_storage() for each in tree_leaves(values) if isinstance(each, torch.Tensor)]


def growth(measure: Callable[[int], int], counts: tuple[int, int] = (20, 80)) -> float:
    """Bytes by which the peak grows for each further token of the texts.

    Args:
        measure: runs what is tested on so many texts, and says how many tokens they have.
        counts: of texts.
    """
    peaks, tokens = [], []
    for count in counts:
        with Peak() as memory:
            tokens.append(measure(count))
        peaks.append(memory.peak)
    return (peaks[1] - peaks[0]) / (tokens[1] - tokens[0])
