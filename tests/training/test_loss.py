"""The loss at the supervised positions against the families' own loss at all positions."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tiny_language import VOCABULARY, tiny_model
from trimtab.training.trainer import IGNORED, completion_loss, head_only_at


def padded_batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Three rows of 9, 6 and 4 tokens, padded on the right; the last 2, 1 and 3 tokens are supervised."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, VOCABULARY - 2, (3, 9), generator=generator)
    mask = torch.zeros(3, 9, dtype=torch.long)
    labels = torch.full((3, 9), IGNORED)
    for row, (length, supervised) in enumerate([(9, 2), (6, 1), (4, 3)]):
        mask[row, :length] = 1
        labels[row, length - supervised : length] = ids[row, length - supervised : length]
    return ids, mask, labels


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_loss_and_gradients_equal_the_familys_own(family: str) -> None:
    """Sum of the selected losses / 6 tokens = model(labels=...).loss, and so are all gradients."""
    ids, mask, labels = padded_batch()
    ours = tiny_model(family)
    theirs = copy.deepcopy(ours)
    loss = completion_loss(ours, ids, mask, labels) / 6
    expected = theirs(input_ids=ids, attention_mask=mask, labels=labels).loss
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    loss.backward()
    expected.backward()
    for (name, mine), reference in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, reference.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_soft_cap_matters_in_the_gemma_case() -> None:
    """Without its soft-cap the Gemma 2 loss is another one, so the test above sees that it is applied."""
    ids, mask, labels = padded_batch()
    model = tiny_model("gemma2")
    capped = completion_loss(model, ids, mask, labels)
    model.config.final_logit_softcapping = None
    assert (completion_loss(model, ids, mask, labels) - capped).abs() > 0.1


def test_head_reads_only_the_positions_before_a_label() -> None:
    """Six supervised tokens: the head sees six hidden states, not 27."""
    ids, mask, labels = padded_batch()
    model = tiny_model()
    seen: list[torch.Size] = []
    model.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    completion_loss(model, ids, mask, labels)
    assert seen == [torch.Size([1, 6, 32])]


def test_head_is_whole_again_after_an_error() -> None:
    """The selection ends with the block, however it ends."""
    model = tiny_model()
    with pytest.raises(RuntimeError, match="stop"), head_only_at(model, torch.zeros(1, 4, dtype=torch.bool)):
        raise RuntimeError("stop")
    assert model(input_ids=torch.zeros(1, 4, dtype=torch.long)).logits.shape == (1, 4, VOCABULARY)


def test_first_token_with_a_label_is_not_predicted_from_nothing() -> None:
    """A label on the first token does not count, as in the families' own loss."""
    ids, mask, _ = padded_batch()
    model = tiny_model()
    labels = ids.masked_fill(mask == 0, IGNORED)
    expected = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    supervised = int((labels[:, 1:] != IGNORED).sum())
    loss = completion_loss(model, ids, mask, labels) / supervised
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)


def test_bfloat16_logits_are_summed_in_float32() -> None:
    """The loss of a bfloat16 model is a float32 number."""
    model: nn.Module = tiny_model().to(torch.bfloat16)
    assert completion_loss(model, *padded_batch()).dtype == torch.float32
