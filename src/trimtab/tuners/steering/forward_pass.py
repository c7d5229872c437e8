"""The tokens of one forward pass: which are real, which are prompt, where packed sequences begin.

Columns count from the first token of the text, whatever of it is in the cache already. The prompt's end is taken
from the first of these that is there:

1. `generate`: all of its input is prompt, whatever cache, chunking or beams it uses.
2. `trimtab.prompt_lengths`: said by the caller.
3. `labels`: the prompt of a row ends at its first supervised token.
4. Neither: in training that is an error; else tokens on an empty cache are prompt, and a single one on a filled
   cache is generated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from trimtab.positions import PositionPolicy

IGNORED_LABEL = -100


@dataclass(frozen=True)
class PromptEnd:
    """What is known of where prompts end.

    Attributes:
        generation: (rows, columns) true on the real tokens of the input of a running `generate`.
        lengths: (rows,) or, for packed rows, (sequences,) numbers of prompt tokens.
        labels: the labels that the model was called with.
        mask: the attention mask that the model was called with; some models hand their backbone matrices made of it.
    """

    generation: Tensor | None = None
    lengths: Tensor | None = None
    labels: Tensor | None = None
    mask: Tensor | None = None


@dataclass(frozen=True)
class ForwardPass:
    """What a layer may ask while a forward pass runs.

    Attributes:
        real: (rows, columns) true where there is a token; the columns hold what is cached (`past` columns), what
            is passed in (`count` columns), and prompt tokens that a later call will bring.
        prompt: (rows, columns) true where that token belongs to a prompt.
        starts: (rows, columns) true on the first token of each packed sequence; None: one sequence a row.
        past: how many columns the cache holds.
        count: how many columns are passed in.
    """

    real: Tensor
    prompt: Tensor
    starts: Tensor | None
    past: int
    count: int
    _masks: dict[PositionPolicy, Tensor] = field(default_factory=dict, repr=False)

    def selected(self, policy: PositionPolicy) -> Tensor:
        """(rows, count), true on the tokens passed in that `policy` steers; computed once for all layers."""
        if policy not in self._masks:
            mask = policy.select(self.real, self.prompt, self.starts)
            self._masks[policy] = mask[:, self.past : self.past + self.count]
        return self._masks[policy]


def read_forward_pass(arguments: Mapping[str, Any], end: PromptEnd, training: bool) -> ForwardPass | None:
    """What the arguments of a backbone's `forward` say; None if they hold no tokens.

    Args:
        arguments: by name.
        end: what is known of where prompts end.
        training: whether a guess would end up in gradients.

    Raises:
        ValueError: it cannot be told where the prompt ends, or which tokens are padding.
    """
    ids = arguments.get("input_ids")
    tokens = ids if ids is not None else arguments.get("inputs_embeds")
    if tokens is None:
        return None
    rows, count = tokens.shape[:2]
    past = _cached_tokens(arguments)
    if end.generation is not None:
        real, prompt = _of_generation(end.generation.to(tokens.device), rows, past + count)
        return ForwardPass(real, prompt, None, past, count)
    real = torch.ones((rows, past + count), dtype=torch.bool, device=tokens.device)
    masks = [mask for mask in (arguments.get("attention_mask"), end.mask) if mask is not None]
    seen = _real_tokens(masks, rows, past + count)
    real = real if seen is None else seen.to(real.device)
    starts = None
    position_ids = arguments.get("position_ids")
    if past == 0 and position_ids is not None and position_ids.dim() == 2:
        starts = (position_ids == 0).expand(rows, count) & real
    unclear = bool(masks) and seen is None
    if unclear and (starts is None or (end.lengths is None and end.labels is None)):
        # Where positions say where each sequence begins, padding cannot shift its first tokens. Nothing else can tell.
        raise ValueError(
            f"positions other than 'all' need to know which tokens are padding, which {_described(masks[0])} does not "
            f"say. Pass attention_mask as (rows, columns), here ({rows}, {past + count}), or for packed rows "
            "position_ids with labels or trimtab.prompt_lengths."
        )
    if end.lengths is not None:
        return ForwardPass(*_of_lengths(end.lengths.to(real.device), real, starts, unclear), past, count)
    if end.labels is not None:
        # Labels of another shape are one a row or so: there the whole text is the prompt.
        supervised = torch.zeros_like(real)
        if end.labels.shape == (rows, count):
            supervised = pad(end.labels.to(real.device) != IGNORED_LABEL, (past, 0))
        return ForwardPass(real, real & ~_from_first(supervised, starts), starts, past, count)
    if training:
        raise ValueError(
            "Training with positions other than 'all' needs to know where the prompt ends: pass labels to the model, "
            "or call it inside trimtab.prompt_lengths(model, lengths)."
        )
    if past and count > 1:
        raise ValueError(
            f"{count} tokens on a cache of {past}, with positions other than 'all': they may be prompt or answer. "
            "Use generate, or call the model inside trimtab.prompt_lengths(model, lengths)."
        )
    prompt = real if past == 0 else real & (torch.arange(past + 1, device=real.device) < past)
    return ForwardPass(real, prompt, starts, past, count)


def _cached_tokens(arguments: Mapping[str, Any]) -> int:
    """How many columns the cache holds.

    Continuous batching (`cache`) and state-space models (`cache_params`) have caches of another kind.
    """
    caches = [arguments.get(name) for name in ("past_key_values", "cache", "cache_params")]
    cache = next((cache for cache in caches if cache is not None), None)
    if cache is None:
        return 0
    if cache is not caches[0] or not callable(length := getattr(cache, "get_seq_length", None)):
        raise ValueError(
            "positions other than 'all' need a cache that says how many tokens of each row it holds; a "
            f"{type(cache).__name__} does not."
        )
    return int(length())


def _real_tokens(masks: Iterable[Any], rows: int, columns: int) -> Tensor | None:
    """(rows, columns) true on real tokens, from the first mask that says it by token; None if none does.

    A static cache may get a mask as long as the cache: what is behind the tokens so far is not there yet.
    """
    for mask in masks:
        if isinstance(mask, Tensor) and mask.dim() == 2 and mask.shape[0] == rows and mask.shape[1] >= columns:
            return mask[:, :columns].bool()
    return None


def _described(mask: Any) -> str:
    """An attention mask in words."""
    kind = f"of shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else f"that is a {type(mask).__name__}"
    return f"an attention_mask {kind}"


def _of_generation(given: Tensor, rows: int, seen: int) -> tuple[Tensor, Tensor]:
    """real and prompt while `generate` runs: what is not its input is generated.

    The mask that reaches the model is not asked: with a static cache it is a matrix for attention.
    """
    if rows % len(given):
        raise ValueError(f"A model that generates from {len(given)} rows was called with {rows} rows.")
    given = given.repeat_interleave(rows // len(given), 0)  # beams and samples repeat each row in place
    generated = max(seen - given.shape[1], 0)  # 0: a part of the prompt is still to come
    return pad(given, (0, generated), value=True), pad(given, (0, generated), value=False)


def _of_lengths(
    lengths: Tensor, real: Tensor, starts: Tensor | None, from_starts: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """real, prompt and starts where the caller has said how many tokens each prompt has.

    `from_starts`: padding is not known, so each sequence is counted from its start, packed or not.
    """
    rows = len(real)
    if starts is not None and (from_starts or int(starts.sum(1).max()) > 1):
        if len(lengths) != int(starts.sum()):
            raise ValueError(f"prompt_lengths has {len(lengths)} lengths for {int(starts.sum())} packed sequences.")
        sequence = starts.flatten().long().cumsum(0).view_as(real) - 1
        column = torch.arange(real.shape[1], device=real.device).expand_as(real)
        start = torch.where(starts, column, 0).cummax(1).values
        return real, real & (column - start < lengths[sequence.clamp(min=0)]), starts
    if len(lengths) != rows:
        raise ValueError(f"prompt_lengths has {len(lengths)} lengths for {rows} rows.")
    missing = (lengths - real.sum(1)).clamp(min=0)[:, None]
    later = torch.arange(int(missing.max()), device=real.device) < missing
    real = torch.cat([real, later], 1)
    return real, real & (real.long().cumsum(1) <= lengths[:, None]), None


def _from_first(supervised: Tensor, starts: Tensor | None) -> Tensor:
    """True from the first supervised token of each sequence on."""
    count = supervised.long().cumsum(1)
    if starts is not None:
        count = count - torch.where(starts, count - supervised.long(), 0).cummax(1).values
    return count > 0
