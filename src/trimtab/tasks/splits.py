"""Tasks whose examples fit into memory: three splits without overlaps, in the order of a seed."""

from __future__ import annotations

import logging
import random
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TypeVar

from trimtab.tasks.base import Example, Split, Task

T = TypeVar("T")
logger = logging.getLogger(__name__)

SPLIT_SEED = 42
"""The paper's seed for splits of its own making (appendix F.1); not the seed of a run."""

VALIDATION_SHARE = 0.2
"""The paper's share of train that becomes validation where two splits are published."""

_PRECEDENCE: tuple[Split, ...] = ("test", "validation", "train")


class SplitTask(Task):
    """A task that has all its examples at hand.

    An example that is in two splits stays in one: test before validation before train. So no model is scored on what
    it has learnt, nor chosen on what it is scored on.
    """

    @abstractmethod
    def splits(self) -> Mapping[Split, Sequence[Example]]:
        """Train, validation and test, each in a fixed order; they may overlap."""

    def overlap_key(self, example: Example) -> str:
        """What two examples have in common that must not be in two splits: here, the prompt up to white space."""
        return " ".join(example.prompt.split())

    def examples(self, split: Split, seed: int) -> Iterator[Example]:
        """The split without what is held out, in an order drawn from `seed`."""
        splits = self.splits()
        above = _PRECEDENCE[: _PRECEDENCE.index(split)]
        held_out = {self.overlap_key(example) for other in above for example in splits[other]}
        kept = [example for example in splits[split] if self.overlap_key(example) not in held_out]
        if removed := len(splits[split]) - len(kept):
            logger.warning("%s: %d %s examples removed, as %s has them", self.name, removed, split, " or ".join(above))
        return iter(in_random_order(kept, seed))


def in_random_order(items: Sequence[T], seed: int) -> list[T]:
    """All items in an order that depends on `seed` alone."""
    return random.Random(seed).sample(items, len(items))


def cut(rows: Sequence[T], share: float = VALIDATION_SHARE) -> tuple[list[T], list[T]]:
    """Rows as (the rest, a random `share` of them), with seed 42.

    By `datasets.Dataset.train_test_split`: the paper (appendix F.1) gives ratio and seed, not the function.

    Raises:
        ValueError: fewer than two rows.
    """
    from datasets import Dataset

    if len(rows) < 2:
        raise ValueError(f"{len(rows)} example(s) cannot be split into two parts.")
    indices = Dataset.from_dict({"row": list(range(len(rows)))}).train_test_split(test_size=share, seed=SPLIT_SEED)
    return [rows[i] for i in indices["train"]["row"]], [rows[i] for i in indices["test"]["row"]]


def deal(rows: Sequence[T], shares: Sequence[float], group: Callable[[T], Hashable]) -> list[list[T]]:
    """Rows in parts of about these shares, all that are of one group in the same part.

    Groups are dealt in an order drawn with seed 42. A part may have a group more than its share; the last part has the
    rest.

    Args:
        rows: what is dealt.
        shares: of the rows, one a part; their sum is 1.
        group: what the rows of a group have in common.
    """
    groups: dict[Hashable, list[T]] = {}
    for row in rows:
        groups.setdefault(group(row), []).append(row)
    names = list(groups)
    random.Random(SPLIT_SEED).shuffle(names)
    bounds = list(accumulate(shares))[:-1]
    parts: list[list[T]] = [[] for _ in shares]
    dealt = 0
    for name in names:
        parts[sum(dealt / len(rows) >= bound for bound in bounds)] += groups[name]
        dealt += len(groups[name])
    return parts
