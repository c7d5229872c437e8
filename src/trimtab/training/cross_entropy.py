"""The loss of a language model without its logits: head, soft-max and gradient in blocks of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

BLOCK_BYTES = 48 * 2**20
"""Size of the logits of one block: small beside the activations, large beside a read of the head's weights."""

CACHED_BYTES = 2**21
"""Size of the float32 logits that the soft-max has at a time on a CPU: from one pass to the next they stay in cache."""


def summed_cross_entropy(
    hidden: Float[Tensor, "tokens width"],
    targets: Int[Tensor, " tokens"],
    head: nn.Module | None = None,
    sizes: Sequence[int] | None = None,
) -> Float[Tensor, "*groups"]:
    """sum_t -log softmax(z_t)[target_t] with z = head(hidden), in float32 (nats).

    The usual way keeps the logits, their float32 copy, its log-soft-max and the gradients of all three at once: with
    every token supervised that is more than the activations of all layers (SmolLM2: 49,152 numbers a token, five times
    over). Here a block of tokens goes through head and soft-max alone, and what is kept for the backward pass is

        dloss/dhidden = dz/dhidden^T (softmax(z) - onehot(targets))

    with the bracket rounded to the dtype of the logits, as it is in the usual way.

    Args:
        hidden: what the head reads, in any floating dtype.
        targets: indices into the vocabulary.
        head: a frozen head, whose parameters get no gradient. None: `hidden` are the logits.
        sizes: of groups of tokens that follow each other; the result is then a sum for each. None: one sum, a scalar.
    """
    losses: Tensor = _CrossEntropy.apply(hidden, targets, head)
    return losses.sum() if sizes is None else torch.stack([group.sum() for group in losses.split(list(sizes))])


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, head: nn.Module | None) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        gradient = torch.empty_like(hidden) if wanted else None
        wide = torch.promote_types(hidden.dtype, torch.float32)
        losses = torch.empty(len(hidden), dtype=wide, device=hidden.device)
        vocabulary = hidden.shape[1] if head is None else _width_of(head, hidden)
        # On a GPU fewer rows would read the head's weights more often than they compute with them.
        rows = max(512 if hidden.is_cuda else 1, BLOCK_BYTES // (hidden.element_size() * vocabulary))
        for start in range(0, len(hidden), rows):
            block = slice(start, start + rows)
            read = hidden[block].detach().requires_grad_(wanted)
            with torch.set_grad_enabled(wanted and head is not None):
                logits = read if head is None else head.forward(read)
            d_logits = _gradient_for(logits, head) if wanted else None
            _soft_max(logits.detach(), targets[block], losses[block], d_logits)
            if gradient is not None and d_logits is not None:
                gradient[block] = d_logits if head is None else torch.autograd.grad(logits, read, d_logits)[0]
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_losses: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        # The factor in float32: rounded to bfloat16 it would scale the whole batch.
        return (gradient.to(d_losses.dtype) * d_losses[:, None]).to(gradient.dtype), None, None


def _soft_max(logits: Tensor, targets: Tensor, losses: Tensor, d_logits: Tensor | None) -> None:
    """Write -log softmax(logits)[target] to `losses`, and its gradient to `d_logits`."""
    rows = len(logits) if logits.is_cuda else max(1, CACHED_BYTES // (4 * logits.shape[1]))
    for start in range(0, len(logits), rows):
        part = slice(start, start + rows)
        target = targets[part, None]
        log_probabilities = torch.log_softmax(logits[part], dim=1, dtype=losses.dtype)
        losses[part] = -log_probabilities.gather(1, target)[:, 0]
        if d_logits is not None:
            probabilities = log_probabilities.exp_()
            d_logits[part] = probabilities.scatter_add_(1, target, torch.full_like(target, -1, dtype=losses.dtype))


def _gradient_for(logits: Tensor, head: nn.Module | None) -> Tensor:
    """Where the gradient of the logits is written."""
    # The backward pass of a linear head needs what it has read, not what it gave: the gradient takes the logits' place.
    return logits.detach() if isinstance(head, nn.Linear) else torch.empty_like(logits, requires_grad=False)


def _width_of(head: nn.Module, hidden: Tensor) -> int:
    """The size of the vocabulary, whatever kind of module the head is."""
    with torch.no_grad():
        return int(head.forward(hidden[:1]).shape[-1])
