"""The loss on the completions, with the language-model head only where a label is and no logits where none are read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from peft import PeftModel
from torch import Tensor, distributed, nn
from torch.nn import functional
from transformers import PreTrainedModel

from trimtab.prefix import cached_prefix, shared_prefix
from trimtab.training.cross_entropy import summed_cross_entropy
from trimtab.tuners.steering import prompt_lengths

IGNORED = -100


class CompletionLoss:
    """The sum of -log p(label) over the supervised tokens of a batch, in float32 (nats).

    A token is supervised when its label is not -100; it is predicted from the position before it. The head reads
    these positions alone, and where it is frozen and the last thing that the model computes, its logits exist for a
    block of tokens at a time (see `summed_cross_entropy`). Where the head is trained, or the family does something
    to its logits (soft-capping, scaling), the model returns them for the supervised positions.

    With `share_prefix`, what all prompts of a batch begin with is computed once (`trimtab.prefix`), unless the model is
    wrapped: a wrapper for distributed training expects one forward pass for each backward pass.
    """

    def __init__(self, model: PreTrainedModel | PeftModel, share_prefix: bool = False) -> None:
        """Look at `model`: it runs once on two tokens, without gradients.

        Args:
            model: the model itself, with or without adapters, before it is wrapped for distributed training.
            share_prefix: compute what all prompts of a batch begin with once.
        """
        self._model = model
        self._share_prefix = share_prefix
        self._head: nn.Module = model.get_output_embeddings()
        self._in_blocks = _is_plain(self._head) and _is_last(self._head, model)

    def __call__(
        self,
        input_ids: Int[Tensor, "rows tokens"],
        attention_mask: Int[Tensor, "rows tokens"],
        labels: Int[Tensor, "rows tokens"],
        wrapped: nn.Module | None = None,
    ) -> Float[Tensor, ""]:
        """The loss of one batch.

        Args:
            input_ids: token ids, padded on the right.
            attention_mask: 1 where there is a token.
            labels: the token ids of the completions, -100 elsewhere.
            wrapped: what is called in place of the model, which it contains (distributed training).
        """
        return self.of_groups(input_ids, attention_mask, labels, 1, wrapped)[0]

    def of_groups(
        self,
        input_ids: Int[Tensor, "rows tokens"],
        attention_mask: Int[Tensor, "rows tokens"],
        labels: Int[Tensor, "rows tokens"],
        groups: int,
        wrapped: nn.Module | None = None,
    ) -> Float[Tensor, " groups"]:
        """The losses of `groups` groups of equally many rows that follow each other, in one pass.

        The other arguments are those of a call.
        """
        supervised = labels[:, 1:] != IGNORED
        targets = labels[:, 1:][supervised]
        predicts = functional.pad(supervised, (0, 1))  # (rows, tokens): the next token is supervised
        prompts = (labels != IGNORED).int().argmax(dim=1)  # the first supervised token ends the prompt
        model = self._model if wrapped is None else wrapped
        rows = len(input_ids) // groups
        # FSDP2 shards in place, so that the model is not wrapped; its ranks must make equally many passes.
        several = distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
        alone = self._share_prefix and model is self._model and not several and rows > 1
        prefix = shared_prefix(self._model, input_ids, prompts) if alone else 0
        cache = None
        if prefix:
            begin = input_ids[:1, :prefix].expand(groups, -1)
            cache = cached_prefix(self._model, begin, rows, int(prompts.min()))
        sizes = [len(targets)] if groups == 1 else supervised.view(groups, -1).sum(1).tolist()
        losses: list[Tensor] = []

        def read(hidden: Tensor) -> Tensor:
            hidden = hidden[predicts[:, prefix:].to(hidden.device)]
            if not self._in_blocks:
                return hidden[None]
            losses.append(summed_cross_entropy(hidden, targets.to(hidden.device), self._head, sizes))
            return hidden[None, :0]

        with _head_reads(self._head, read), prompt_lengths(self._model, prompts):
            logits = model(
                input_ids=input_ids[:, prefix:],
                attention_mask=attention_mask,
                use_cache=cache is not None,
                **({} if cache is None else {"past_key_values": cache}),
            ).logits[0]
        # Without a row its sum is zero: it ties the loss to the output, on which wrappers wait for the backward pass.
        if losses:
            return losses[0] + logits.sum()
        return summed_cross_entropy(logits, targets.to(logits.device), sizes=sizes)


@contextmanager
def _head_reads(head: nn.Module, read: Any) -> Iterator[None]:
    """Within `with`, `head` reads `read(hidden states)` in place of the hidden states (rows, tokens, width)."""

    def replace(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (read(inputs[0]), *inputs[1:])

    handle = head.register_forward_pre_hook(replace)
    try:
        yield
    finally:
        handle.remove()


def _is_plain(head: nn.Module) -> bool:
    """Whether calling the head's own `forward`, with its parameters as constants, leaves nothing out."""
    hooked = any(module._forward_hooks or module._forward_pre_hooks for module in head.modules())
    return not hooked and not any(parameter.requires_grad for parameter in head.parameters())


def _is_last(head: nn.Module, model: PreTrainedModel | PeftModel) -> bool:
    """Whether the model's logits are what the head returns, seen on two tokens."""
    returned: list[Tensor] = []
    handle = head.register_forward_hook(lambda module, inputs, output: returned.append(output))
    training = model.training
    model.eval()  # no dropout: the run's random numbers are not touched
    try:
        ids = torch.tensor([[0, 1]], device=model.device)
        with torch.no_grad(), prompt_lengths(model, torch.tensor([2], device=model.device)):
            logits = model(input_ids=ids, use_cache=False).logits
    finally:
        handle.remove()
        model.train(training)
    return len(returned) == 1 and returned[0].dtype == logits.dtype and torch.equal(returned[0], logits)
