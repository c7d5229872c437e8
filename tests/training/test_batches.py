"""Batches of similar length, in an order that depends on seed and epoch alone."""

from __future__ import annotations

import random

from trimtab.training.batches import LengthGroupedSampler

_DRAW = random.Random(1)
LENGTHS = [_DRAW.randint(4, 400) for _ in range(1003)]


def padded_tokens(order: list[int]) -> int:
    """Tokens after padding each batch of eight to its longest."""
    return sum(8 * max(LENGTHS[i] for i in order[b : b + 8]) for b in range(0, len(order), 8))


def test_every_example_once() -> None:
    """An epoch is a permutation."""
    assert sorted(LengthGroupedSampler(LENGTHS, 8, seed=0)) == list(range(1003))


def test_order_is_a_function_of_seed_and_epoch() -> None:
    """Two samplers agree in epoch 3, whatever they did before; other seeds and epochs differ."""
    first, second = LengthGroupedSampler(LENGTHS, 8, seed=5), LengthGroupedSampler(LENGTHS, 8, seed=5)
    epochs = []
    for epoch in range(4):
        first.epoch = epoch
        epochs.append(list(first))
    second.epoch = 3
    assert list(second) == epochs[3]
    assert epochs[3] != epochs[2]
    assert list(LengthGroupedSampler(LENGTHS, 8, seed=6)) != epochs[0]


def test_batches_hold_similar_lengths() -> None:
    """Less than a tenth of the padding that random batches need is left."""
    grouped = padded_tokens(list(LengthGroupedSampler(LENGTHS, 8, seed=0))) - sum(LENGTHS)
    shuffled = random.Random(0).sample(range(1003), 1003)
    assert grouped < 0.1 * (padded_tokens(shuffled) - sum(LENGTHS))


def test_longest_batch_comes_first() -> None:
    """Memory that does not suffice shows at the first step."""
    first_batch = list(LengthGroupedSampler(LENGTHS, 8, seed=0))[:8]
    assert max(LENGTHS[i] for i in first_batch) == max(LENGTHS)


def test_batches_do_not_come_in_order_of_length() -> None:
    """The batches behind the first are shuffled."""
    order = list(LengthGroupedSampler(LENGTHS, 8, seed=0))
    longest = [max(LENGTHS[i] for i in order[b : b + 8]) for b in range(8, 400, 8)]
    assert longest != sorted(longest, reverse=True)


def test_fewer_examples_than_a_batch() -> None:
    """One short batch is an epoch."""
    assert sorted(LengthGroupedSampler([3, 1, 2], 8, seed=0)) == [0, 1, 2]
