"""Rows that hold several sequences: each is steered as it would be alone."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from steering_oracle import POLICIES, TOLERANCE, base_and_adapted
from tiny_models import token_ids
from trimtab import prompt_lengths

PACKED = [(4, 2), (1, 3), (5, 1)]


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "mixtral"])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("told", ["labels", "lengths"])
def test_packed_sequences(name: str, policy: str, told: str) -> None:
    """Each sequence of a packed row gives the logits that it gives alone."""
    _, adapted = base_and_adapted(name, policy)
    lengths = [prompt for prompt, _ in PACKED]
    pieces = token_ids(1, sum(map(sum, PACKED))).split([sum(counts) for counts in PACKED], 1)
    labels = [torch.where(torch.arange(p.shape[1]) >= n, p, -100) for p, n in zip(pieces, lengths, strict=True)]
    positions = torch.cat([torch.arange(piece.shape[1]) for piece in pieces])[None]
    # With a cache, transformers takes no account of where sequences begin.
    packed = {"input_ids": torch.cat(pieces, 1), "position_ids": positions, "use_cache": False}
    if told == "labels":
        together = adapted(**packed, labels=torch.cat(labels, 1)).logits
        alone = [adapted(input_ids=p, labels=y).logits for p, y in zip(pieces, labels, strict=True)]
    else:
        with prompt_lengths(adapted, lengths):
            together = adapted(**packed).logits
        alone = []
        for piece, length in zip(pieces, lengths, strict=True):
            with prompt_lengths(adapted, [length]):
                alone.append(adapted(input_ids=piece).logits)
    assert_close(together, torch.cat(alone, 1), **TOLERANCE)


def test_as_many_lengths_as_packed_sequences() -> None:
    """In a packed row each sequence needs its length."""
    _, adapted = base_and_adapted("llama", "last_prompt")
    positions = torch.tensor([[0, 1, 2, 0, 1, 0, 1, 2, 3, 4, 5, 6]])
    with prompt_lengths(adapted, [2]), pytest.raises(ValueError, match="1 lengths for 3 packed sequences"):
        adapted(input_ids=token_ids(1, 12), position_ids=positions)
