"""Maps and vectors at the sites of tiny models by hooks of our own: no site, adapter or steering layer is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from first_argument import replace_first_argument
from tiny_models import token_ids

Shift = Callable[[Tensor], Tensor]
IDS = token_ids(3, 9)
LABELS = torch.where(torch.arange(9) > torch.tensor([[5], [3], [6]]), IDS, -100)
ANSWER_TOKENS = int((LABELS[:, 1:] != -100).sum())

# Names of the modules as the families' own code calls them; Gemma 2 adds what leaves the norms behind its sub-layers.
_LLAMA = {
    "block": ("model.layers.{}", "output"),
    "mlp": ("model.layers.{}.mlp", "output"),
    "mlp_input": ("model.layers.{}.mlp", "input"),
    "attention": ("model.layers.{}.self_attn", "output"),
    "attention_input": ("model.layers.{}.self_attn", "input"),
}
_NAMES = {
    "llama": _LLAMA,
    "granite": _LLAMA,
    "gemma2": {
        **_LLAMA,
        "mlp": ("model.layers.{}.post_feedforward_layernorm", "output"),
        "attention": ("model.layers.{}.post_attention_layernorm", "output"),
    },
    "gpt2": {
        "block": ("transformer.h.{}", "output"),
        "mlp": ("transformer.h.{}.mlp", "output"),
        "mlp_input": ("transformer.h.{}.mlp", "input"),
        "attention": ("transformer.h.{}.attn", "output"),
        "attention_input": ("transformer.h.{}.attn", "input"),
    },
}


def multiplier(family: str, site: str) -> float:
    """What the stream receives of a sub-layer's output: Granite's config says 0.22."""
    return 0.22 if family == "granite" and site in ("mlp", "attention") else 1.0


@contextmanager
def shifted(model: PreTrainedModel, family: str, site: str, layer: int, shift: Shift) -> Iterator[None]:
    """Within `with`, m h + shift(m h) in place of m h at a site of one layer."""
    name, side = _NAMES[family][site]
    module = model.get_submodule(name.format(layer))
    m = multiplier(family, site)

    def output(module: Any, args: Any, out: Any) -> Any:
        h = out if isinstance(out, Tensor) else out[0]
        h = h + shift(m * h) / m
        return h if isinstance(out, Tensor) else (h, *out[1:])

    if side == "output":
        handle = module.register_forward_hook(output)
    else:
        handle = replace_first_argument(module, lambda h: h + shift(h))
    try:
        yield
    finally:
        handle.remove()


def read(h: Tensor, normalize: bool) -> Tensor:
    """h or h / rms(h)."""
    return h / (h.square().mean(-1, keepdim=True) + 1e-6).sqrt() if normalize else h


def loss_of(model: Any, rows: slice = slice(None), columns: int | None = None, pad: int = 0) -> Tensor:
    """The sum of -log p over the labels of some rows, by torch's cross entropy in the model's dtype.

    Args:
        model: a model or a PeftModel.
        rows: which of the three.
        columns: how many tokens are read; None: all.
        pad: further columns of padding, on the right.
    """
    ids = functional.pad(IDS[rows, :columns], (0, pad), value=7)
    labels = functional.pad(LABELS[rows, :columns], (0, pad), value=-100)
    mask = functional.pad(torch.ones_like(IDS[rows, :columns]), (0, pad))
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    return functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="sum")


def two_batches(model: Any) -> Iterator[Tensor]:
    """The rows in two batches."""
    for rows in (slice(0, 2), slice(2, 3)):
        yield loss_of(model, rows)
