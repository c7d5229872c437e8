"""Which examples share a batch: those of similar length, in an order that the seed alone decides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

_POOL = 50  # batches among which examples are sorted: more would make batches alike in every epoch


def used_examples(examples: int, micro_batch: int, processes: int) -> int:
    """How many of the examples an epoch reads: with one process all, else full micro-batches for everybody.

    Raises:
        ValueError: there is not one micro-batch for each of several processes.
    """
    if processes == 1:
        return examples
    used = examples - examples % (micro_batch * processes)
    if not used:
        raise ValueError(
            f"{examples} example(s) are too few for {processes} processes with micro-batches of {micro_batch}: "
            "choose a smaller batch_size or fewer processes."
        )
    return used


class LengthGroupedSampler(Sampler[int]):
    """Indices in batches of similar length, shuffled by (seed, epoch).

    The examples are shuffled, cut into pools, sorted by length within a pool and cut into batches, whose
    order is shuffled. The longest batch comes first, so that memory that does not suffice shows at once. The
    order is a function of seed and epoch only, not of a generator's state: a resumed run sees what it would
    have seen.

    Args:
        lengths: tokens of each example.
        batch_size: examples in one optimiser step (all processes, all accumulation steps).
        seed: of the order.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        """Begin with epoch 0; whoever runs the epochs sets `epoch`."""
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        """How many examples one epoch has."""
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        """The indices of one epoch."""
        generator = torch.Generator().manual_seed(self.seed + 1_000_003 * self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        pool = self.batch_size * _POOL
        by_length = [
            index
            for start in range(0, len(order), pool)
            for index in sorted(order[start : start + pool], key=lambda i: -self.lengths[i])
        ]
        batches = [by_length[i : i + self.batch_size] for i in range(0, len(by_length), self.batch_size)]
        # A batch that is not full stays last: anywhere else it would shift the borders of those behind it.
        last = [batches.pop()] if batches and len(batches[-1]) < self.batch_size else []
        batches = [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
        longest = max(range(len(batches)), key=lambda b: max(self.lengths[i] for i in batches[b]), default=0)
        if batches:
            batches[0], batches[longest] = batches[longest], batches[0]
        yield from (index for batch in batches + last for index in batch)


class ParallelSampler(Sampler[tuple[int, ...]]):
    """Several orders of the same examples at a time: each item holds the next index of every order.

    Args:
        samplers: one an order, of equal length.
    """

    def __init__(self, samplers: Sequence[LengthGroupedSampler]) -> None:
        """Begin with epoch 0; whoever runs the epochs sets `epoch`."""
        self.samplers = samplers

    @property
    def epoch(self) -> int:
        """The epoch of all orders."""
        return self.samplers[0].epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        for sampler in self.samplers:
            sampler.epoch = epoch

    def __len__(self) -> int:
        """How many examples one epoch of one order has."""
        return len(self.samplers[0])

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        """The indices of one epoch."""
        return zip(*self.samplers, strict=True)
