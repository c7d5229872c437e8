"""The blocked loss against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from trimtab.training import cross_entropy
from trimtab.training.cross_entropy import summed_cross_entropy


def logits_and_targets(rows: int = 13, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits as large as real ones, and targets that include the first and the last word."""
    generator = torch.Generator().manual_seed(1)
    logits = 8 * torch.randn(rows, 50, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 50, (rows,), generator=generator)
    targets[:2] = torch.tensor([0, 49])
    return logits.to(dtype).requires_grad_(True), targets


@pytest.mark.parametrize("rows_in_a_block", [1, 4, 13, 100])
def test_loss_and_gradient_equal_torchs(monkeypatch: pytest.MonkeyPatch, rows_in_a_block: int) -> None:
    """Whatever the size of the blocks, one that does not divide the rows included."""
    monkeypatch.setattr(cross_entropy, "BLOCK_BYTES", 8 * 50 * rows_in_a_block)
    monkeypatch.setattr(cross_entropy, "CACHED_BYTES", 4 * 50 * 3)
    logits, targets = logits_and_targets()
    reference = logits.detach().clone().requires_grad_(True)
    (3 * summed_cross_entropy(logits, targets)).backward()
    (3 * functional.cross_entropy(reference, targets, reduction="sum")).backward()
    torch.testing.assert_close(logits.grad, reference.grad, rtol=1e-12, atol=1e-12)


def test_gradcheck() -> None:
    """The gradient is that of the loss, by finite differences in float64."""
    logits, targets = logits_and_targets(rows=3)
    assert torch.autograd.gradcheck(lambda x: summed_cross_entropy(x, targets), (logits,))


def test_bfloat16_loses_nothing_against_a_float32_copy() -> None:
    """Loss of bf16 logits = that of their float32 copy; the gradient is that one rounded once."""
    logits, targets = logits_and_targets(dtype=torch.bfloat16)
    copy = logits.detach().float().requires_grad_(True)
    loss, expected = summed_cross_entropy(logits, targets), functional.cross_entropy(copy, targets, reduction="sum")
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    loss.backward()
    expected.backward()
    assert logits.grad.dtype == torch.bfloat16
    torch.testing.assert_close(logits.grad, copy.grad.bfloat16(), rtol=0.008, atol=0)


@pytest.mark.parametrize("rows_in_a_block", [1, 5, 100])
def test_with_a_head_no_logits_are_needed_from_outside(monkeypatch: pytest.MonkeyPatch, rows_in_a_block: int) -> None:
    """Through a linear head with a bias: the loss and the gradient of what it reads are autograd's."""
    monkeypatch.setattr(cross_entropy, "BLOCK_BYTES", 8 * 50 * rows_in_a_block)
    monkeypatch.setattr(cross_entropy, "CACHED_BYTES", 4 * 50 * 3)
    _, targets = logits_and_targets()
    head = torch.nn.Linear(6, 50, dtype=torch.float64).requires_grad_(False)
    hidden = torch.randn(13, 6, dtype=torch.float64, requires_grad=True)
    reference = hidden.detach().clone().requires_grad_(True)
    summed_cross_entropy(hidden, targets, head).backward()
    functional.cross_entropy(head(reference), targets, reduction="sum").backward()
    torch.testing.assert_close(hidden.grad, reference.grad, rtol=1e-12, atol=1e-12)


def test_a_head_whose_backward_pass_reads_its_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """tanh's does: the gradient must not be written over them."""
    monkeypatch.setattr(cross_entropy, "BLOCK_BYTES", 8 * 50 * 5)
    _, targets = logits_and_targets()
    head = torch.nn.Sequential(torch.nn.Linear(6, 50, dtype=torch.float64), torch.nn.Tanh()).requires_grad_(False)
    hidden = torch.randn(13, 6, dtype=torch.float64, requires_grad=True)
    reference = hidden.detach().clone().requires_grad_(True)
    summed_cross_entropy(hidden, targets, head).backward()
    functional.cross_entropy(head(reference), targets, reduction="sum").backward()
    torch.testing.assert_close(hidden.grad, reference.grad, rtol=1e-12, atol=1e-12)


def test_without_gradients_nothing_is_kept() -> None:
    """No graph, the same loss."""
    logits, targets = logits_and_targets()
    with torch.no_grad():
        loss = summed_cross_entropy(logits, targets)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, functional.cross_entropy(logits.detach(), targets, reduction="sum").to(loss.dtype))


def test_no_tokens_cost_nothing() -> None:
    """A batch in which nothing is supervised: loss 0, not NaN."""
    logits, targets = logits_and_targets()
    assert summed_cross_entropy(logits[:0], targets[:0]).item() == 0


def test_groups_of_tokens_have_sums_of_their_own() -> None:
    """Each is the loss of its tokens alone, and its gradient goes to them only; a group may be empty."""
    logits, targets = logits_and_targets()
    sizes = [4, 0, 9]
    sums = summed_cross_entropy(logits, targets, sizes=sizes)
    expected = [
        functional.cross_entropy(rows, words, reduction="sum")
        for rows, words in zip(logits.split(sizes), targets.split(sizes), strict=True)
    ]
    torch.testing.assert_close(sums, torch.stack(expected), rtol=1e-12, atol=1e-12)
    weights = torch.tensor([2.0, 5.0, -0.5], dtype=torch.float64)
    (found,) = torch.autograd.grad((weights * sums).sum(), logits)
    (wanted,) = torch.autograd.grad(sum(w * loss for w, loss in zip(weights, expected, strict=True)), logits)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
