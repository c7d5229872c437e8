"""What one call was told of its tokens, the next one does not know, whatever ended the first."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor

from steering_oracle import POLICIES, base_and_adapted
from tiny_models import token_ids
from trimtab import prompt_lengths

COLUMNS = 12
IDS = token_ids(3, COLUMNS)


@pytest.fixture(params=POLICIES)
def adapted(request: pytest.FixtureRequest) -> Any:
    return base_and_adapted("llama", request.param)[1]


@pytest.fixture
def plain(adapted: Any) -> Tensor:
    return adapted(input_ids=IDS).logits


def same(adapted: Any, plain: Tensor) -> None:
    assert torch.equal(adapted(input_ids=IDS).logits, plain)


def test_after_labels(adapted: Any, plain: Tensor) -> None:
    """Labels are forgotten with the call they were passed to."""
    adapted(input_ids=IDS, labels=torch.where(torch.arange(COLUMNS) > 3, IDS, -100))
    same(adapted, plain)


def test_after_a_failed_call(adapted: Any, plain: Tensor) -> None:
    """So they are if the call fails, before the backbone, inside it or behind it."""
    labels = torch.where(torch.arange(COLUMNS) > 3, IDS, -100)
    with pytest.raises((IndexError, ValueError)):
        adapted(input_ids=IDS + 10_000, labels=labels)
    with pytest.raises((IndexError, RuntimeError)):
        adapted(input_ids=IDS, labels=torch.where(labels > 0, labels + 10_000, labels))
    with pytest.raises(ValueError, match="input_ids"):
        adapted(labels=labels)
    same(adapted, plain)


def test_after_generate(adapted: Any, plain: Tensor) -> None:
    """The prompt of a `generate` is forgotten, also when it fails on the way."""
    adapted.generate(input_ids=IDS[:, :4], max_new_tokens=2)
    same(adapted, plain)

    def fail(ids: Tensor, scores: Tensor) -> Tensor:
        raise KeyError("on the way")

    with pytest.raises(KeyError, match="on the way"):
        adapted.generate(input_ids=IDS[:, :4], max_new_tokens=2, logits_processor=[fail])
    same(adapted, plain)


def test_after_prompt_lengths(adapted: Any, plain: Tensor) -> None:
    """Lengths end with their block, and an inner block gives way to the outer one again."""
    with prompt_lengths(adapted, [2, 3, 4]):
        outer = adapted(input_ids=IDS).logits
        with prompt_lengths(adapted, [5, 5, 5]):
            adapted(input_ids=IDS)
        same(adapted, outer)
        adapted.generate(input_ids=IDS[:, :4], max_new_tokens=2)
        same(adapted, outer)
    with pytest.raises(KeyError), prompt_lengths(adapted, [2, 3, 4]):
        raise KeyError
    same(adapted, plain)
    with prompt_lengths(adapted, [2, 3]), suppress(ValueError):  # every policy but "all" raises
        adapted(input_ids=IDS)
    same(adapted, plain)


def test_between_batches_of_one_shape(adapted: Any, plain: Tensor) -> None:
    """The masks of a batch are not those of the next, though their shapes agree."""
    masks = [torch.arange(COLUMNS) >= torch.tensor(starts)[:, None] for starts in ([3, 0, 5], [9, 0, 0])]
    first, other = ({"input_ids": IDS, "attention_mask": mask.long()} for mask in masks)
    labels = torch.where(torch.arange(COLUMNS) >= torch.tensor([[9], [7], [10]]), IDS, -100)
    alone = adapted(**first, labels=labels).logits
    adapted(**other, labels=torch.where(torch.arange(COLUMNS) > 10, IDS, -100))
    assert torch.equal(adapted(**first, labels=labels).logits, alone)


def test_a_layer_alone_has_no_tokens(adapted: Any, plain: Tensor) -> None:
    """A decoder layer called by itself after a call is not given the masks of that call."""
    model = adapted.get_base_model()
    layer = model.model.layers[0]
    h = torch.randn(3, COLUMNS, 24)
    rotary = model.model.rotary_emb(h, torch.arange(COLUMNS)[None])
    if adapted.peft_config["default"].positions == "all":
        layer(h, position_embeddings=rotary)
    else:
        with pytest.raises(RuntimeError, match="input_ids or inputs_embeds"):
            layer(h, position_embeddings=rotary)
