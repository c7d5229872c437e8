"""Greedy decoding of several models that take turns token by token, all in one thread of Python."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Int64
from peft import PeftModel
from torch import Tensor, nn
from transformers import DynamicCache


class Decoding:
    """A model's greedy text after a prompt, one token at a time, with the cache that `generate` makes.

    `generate` itself can't stop between two tokens; threads that wait for each other can, but each would compute with
    a pool of OpenMP threads of its own. What `generate` does besides (masks, when to stop) is left out: it is the same
    for every model and would make their times more alike.

    Args:
        model: with adapters or without. Of a PeftModel the wrapped model is called, as `generate` calls it.
        prompt: token ids.
    """

    def __init__(self, model: Any, prompt: Int64[Tensor, "rows tokens"]) -> None:
        self._model = model.get_base_model() if isinstance(model, PeftModel) else model
        self._cache = DynamicCache(config=self._model.config)
        self._input = prompt
        self.tokens: list[Int64[Tensor, "rows 1"]] = []
        self.seconds: list[float] = []

    @torch.no_grad()
    def step(self) -> None:
        """Append the next token of each row, and how long it took."""
        began = time.perf_counter()
        output = self._model(input_ids=self._input, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        self._input = output.logits[:, -1].argmax(dim=-1, keepdim=True)
        self.seconds.append(time.perf_counter() - began)
        self.tokens.append(self._input)


def in_turns(models: Mapping[str, Any], prompt: Int64[Tensor, "rows tokens"], new: int) -> dict[str, list[float]]:
    """The seconds of each new token but the first, which reads the prompt, by model.

    A machine whose speed changes within seconds does so for all of them. Every model follows another, never itself: its
    own weights may still be in the caches.
    """
    decodings = {name: Decoding(model, prompt) for name, model in models.items()}
    order = list(decodings.values())
    for _ in range(new):
        for decoding in order:
            decoding.step()
        order.append(order.pop(0))
    return {name: decoding.seconds[1:] for name, decoding in decodings.items()}


@contextmanager
def timed(modules: Iterable[nn.Module]) -> Iterator[list[float]]:
    """For the time of the block, the seconds of every call of every module's forward are appended to the list."""
    seconds: list[float] = []

    def with_clock(forward: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return forward(*args, **kwargs)
            finally:
                seconds.append(time.perf_counter() - began)

        return call

    clocked = list(modules)
    for module in clocked:
        module.forward = with_clock(module.forward)  # type: ignore[method-assign]
    try:
        yield seconds
    finally:
        for module in clocked:
            del module.forward
