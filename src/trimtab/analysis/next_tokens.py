"""Next-token distributions of a model on whole texts, a block of tokens at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trimtab.analysis.stream import Batch
from trimtab.models import AnyModel
from trimtab.tuners.steering.hosts import backbone

BLOCK_BYTES = 32 * 2**20
"""Size of the float32 numbers of one block, a row of the vocabulary for each token."""

State = Callable[[], AbstractContextManager[AnyModel]]
"""A model as it is to be observed, within `with`: `Subject.as_base`, `Subject.as_tuned`."""


def head_is_last(state: State) -> bool:
    """Whether the model's logits are its head on the last hidden states, and nothing else: seen on two tokens.

    Not where a family does something to its logits (soft-capping, scaling).
    """
    with state() as model:
        trunk, head = backbone(model), _head(model)
        ids = torch.tensor([[0, 1]], device=_device(trunk))
        hidden = getattr(trunk(input_ids=ids, use_cache=False), "last_hidden_state", None)
        if hidden is None or head is None:
            return False
        expected = model(input_ids=ids, use_cache=False).logits
        found = head(hidden)
        # A soft-cap hardly bends small logits, so nearly equal is not enough.
        return found.shape == expected.shape and torch.equal(found, expected)


@dataclass(frozen=True)
class NextTokens:
    """What is kept of one forward pass: hidden states where the head comes last, else the logits of the batch.

    Attributes:
        state: the model; the head is called in the same state.
        kept: (tokens, width) or (tokens, vocabulary), the batch's tokens row after row.
        hidden: whether these are hidden states.
    """

    state: State
    kept: Float[Tensor, "tokens _"]
    hidden: bool

    @classmethod
    def read(cls, state: State, batch: Batch, *, hidden: bool) -> NextTokens:
        """Run the model on a batch.

        Args:
            state: the model.
            batch: of texts.
            hidden: what `head_is_last` says; False needs memory for the logits of the whole batch.
        """
        with state() as model:
            module = backbone(model) if hidden else model
            device = _device(module)
            output = module(input_ids=batch.ids.to(device), attention_mask=batch.mask.to(device), use_cache=False)
            states: Tensor = output.last_hidden_state if hidden else output.logits
        return cls(state, states[batch.kept.to(states.device)], hidden)

    def log_probabilities(self, block: slice) -> Float[Tensor, "tokens vocabulary"]:
        """log p(next token) of a block of tokens, in float32 at least."""
        logits = self.kept[block]
        if self.hidden:
            with self.state() as model:
                logits = _head(model)(logits)
        return torch.log_softmax(logits, dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))

    def blocks(self) -> Iterator[slice]:
        """The tokens in blocks, of which the distributions are small enough to be held at once."""
        tokens = len(self.kept)
        # On a GPU fewer tokens would read the head's weights more often than they compute with them.
        step = 512 if self.kept.is_cuda else 1
        if tokens:
            step = max(step, BLOCK_BYTES // (4 * self.log_probabilities(slice(0, 1)).shape[-1]))
        for start in range(0, tokens, step):
            yield slice(start, min(start + step, tokens))


def _head(model: AnyModel) -> nn.Module:
    head: nn.Module = model.get_output_embeddings()
    return head


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device
