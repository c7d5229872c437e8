"""LoFiT's first stage: the method that finds the heads, its result, and the method that they make complete."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from accelerate import PartialState
from peft import PeftModel
from transformers import PreTrainedModel

from trimtab.files import write_text
from trimtab.methods import Method
from trimtab.sites import locate
from trimtab.training.directory import RunDirectory
from trimtab.training.restoring import restored
from trimtab.tuners.steering import head_norms
from trimtab.tuners.steering.heads import selected_count

LEARNING_RATE = 1e-3
"""Of the first stage; the authors' runs lie between 5e-4 and 5e-3, and the second stage's about ten times higher."""

_SHARED = ("site", "layers", "positions", "penalty")
"""Options that the first stage takes from the second one's."""


def selection_method(method: Method) -> Method | None:
    """The stage that selects the heads of `method`; None if they are known or there are none.

    It trains a factor a feature of every head with LoFiT's L1 penalty, at a constant rate.
    """
    if method.adapter.get("select_heads") is None:
        return None
    shared = {name: method.adapter[name] for name in _SHARED if name in method.adapter}
    return replace(
        method,
        adapter={**shared, "intervention": "head_scale"},
        learning_rate=LEARNING_RATE,
        schedule="constant",
        warmup_ratio=0.0,
        weight_decay=0.0,
        rate_factors={},
    )


def heads_to_select(model: PreTrainedModel, method: Method) -> int:
    """How many heads `method` leaves to be selected on `model`.

    Raises:
        ValueError: more than there are.
    """
    hosts = locate(model, method.adapter["site"], method.adapter.get("layers"))
    return selected_count(method.adapter["select_heads"], hosts)


def selected_heads(base: PreTrainedModel, run: RunDirectory, count: int) -> list[tuple[int, int]]:
    """The `count` best heads, (layer, head), of the finished first stage of `run`; written to `run.heads_file` too."""
    for file in run.selection.weights.glob("*.bin"):
        raise ValueError(f"{file} is a pickle: only safetensors are read.")
    with restored(base):
        tuned = PeftModel.from_pretrained(base, str(run.selection.weights))
        try:
            best = head_norms(tuned)[:count]
        finally:
            tuned.unload()
    if PartialState().is_main_process:
        rows = [{"layer": layer, "head": head, "norm": norm} for layer, head, norm in best]
        write_text(run.heads_file, json.dumps(rows, indent=1) + "\n")
    return [(layer, head) for layer, head, _ in best]


def with_heads(method: Method, heads: Sequence[tuple[int, int]]) -> Method:
    """`method` on these heads, (layer, head)."""
    left = {name: value for name, value in method.adapter.items() if name not in ("select_heads", "layers")}
    if method.adapter["intervention"] != "jola":  # the penalty was the first stage's
        left.pop("penalty", None)
    return replace(method, adapter={**left, "heads": [list(pair) for pair in heads]})
