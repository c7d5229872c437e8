"""Memory of the analyses: sums over tokens are kept, not the tokens' hidden states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from analysis.subjects import subject, with_lora
from peak_memory import Peak, growth
from trimtab.analysis import AnalysisOptions, Subject
from trimtab.analysis.alignment import alignment
from trimtab.analysis.drift import drift
from trimtab.analysis.mlp_share import mlp_share
from trimtab.analysis.oracle import oracle
from trimtab.analysis.post_block import post_block

OPTIONS = AnalysisOptions(batch_tokens=60, directions=4)


@pytest.mark.parametrize(
    "measure",
    [
        lambda given: oracle(given, OPTIONS),
        lambda given: alignment(given, OPTIONS),
        lambda given: post_block(given, OPTIONS),
        lambda given: mlp_share(given, OPTIONS),
        lambda given: drift(given, given.prompts, batch_tokens=60),
    ],
    ids=["oracle", "alignment", "post_block", "mlp_share", "drift"],
)
def test_memory_does_not_grow_with_the_prompts(measure: Callable[[Subject], Any]) -> None:
    """By less than half a row of the stream for each token, where a batch holds a few prompts."""

    def measured(count: int) -> int:
        given = subject(with_lora(), count=count)
        measure(given)
        return given.tokens(0)

    row = 24 * torch.float32.itemsize
    assert growth(measured, (80, 240)) < row / 2


def test_what_is_counted() -> None:
    """Storages while they live: a view is none, an operation in place is none, what is freed is gone."""
    before = torch.zeros(500)
    with Peak() as memory:
        ones = torch.ones(1000)
        views = [ones.view(10, 100), ones[3:]]
        before.add_(1)
        for _ in range(5):
            copy = ones.double()
            del copy
        assert memory.live == 4000
        del ones, views
    assert memory.peak == 12000
    assert memory.live == 0
