"""One answer, token by token; several rows at once, each on its own adapter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from jaxtyping import Int
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

from trimtab.chat.settings import ChatSettings
from trimtab.models import context_length

Show = Callable[[Sequence[str]], None]
_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class RowStreamer(BaseStreamer):
    """Shows the text of every row each time it grows; transformers' own streamers know a single row only."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, rows: int, show: Show) -> None:
        """`show` gets the whole text of every row so far."""
        self._tokenizer = tokenizer
        self._tokens: list[list[int]] = [[] for _ in range(rows)]
        self._show = show
        self._prompt_is_next = True

    @property
    def texts(self) -> list[str]:
        """What each row says so far. A character of which bytes are still to come is left out."""
        texts = (str(self._tokenizer.decode(tokens, skip_special_tokens=True)) for tokens in self._tokens)
        return [text.rstrip(_INCOMPLETE) for text in texts]

    def put(self, value: Tensor) -> None:
        """Take the prompts (the first call) or the next token of each row, (rows,)."""
        if self._prompt_is_next:
            self._prompt_is_next = False
            return
        for tokens, new in zip(self._tokens, value.reshape(len(self._tokens), -1).tolist(), strict=True):
            tokens += new
        self._show(self.texts)

    def end(self) -> None:
        """Nothing is held back, so nothing is left to show."""


def reply(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    settings: ChatSettings,
    show: Show,
    adapters: Sequence[str] | None = None,
) -> list[str]:
    """What the model answers to each prompt; an interrupt (Ctrl-C) ends the answers where they are.

    Args:
        model: a base, or a model with adapters.
        tokenizer: the model's.
        prompts: token ids, one row a prompt.
        settings: how long and how likely.
        show: called with the texts of all rows whenever they grow.
        adapters: the adapter of each row ("__base__": none); None: the active one for all.

    Raises:
        ValueError: a prompt leaves no room for an answer in the model's context.
    """
    room = _room(model, max(len(prompt) for prompt in prompts))
    longest = max(len(prompt) for prompt in prompts)
    pad = tokenizer.pad_token_id
    ids: Int[Tensor, "rows tokens"] = torch.tensor([[pad] * (longest - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    options: dict[str, Any] = {"do_sample": settings.temperature > 0}
    if settings.temperature > 0:
        options["temperature"] = settings.temperature
        torch.manual_seed(settings.seed)
    else:  # a model's own sampling settings would only bring warnings
        options |= {"temperature": None, "top_p": None, "top_k": None}
    if settings.stop is not None:
        options |= {"stop_strings": [settings.stop], "tokenizer": tokenizer}
    if adapters is not None:
        options["adapter_names"] = list(adapters)
    streamer = RowStreamer(tokenizer, len(prompts), show)
    with suppress(KeyboardInterrupt):
        model.generate(  # type: ignore[operator]  # PeftModel's attributes are typed as tensors
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=min(settings.max_new_tokens or room, room),
            pad_token_id=pad,
            streamer=streamer,
            **options,
        )
    return streamer.texts


def _room(model: PreTrainedModel | PeftModel, tokens: int) -> int:
    """How many tokens fit behind a prompt of `tokens`."""
    context = context_length(model)
    if context is None:
        return 2**31
    if tokens >= context:
        raise ValueError(
            f"The conversation has {tokens:,} tokens, and the model reads at most {context:,}, its answer included."
        )
    return context - tokens
