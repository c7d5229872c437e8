"""What all prompts of a batch begin with, computed once.

Instructions, a system prompt, worked examples: the prompts of a task often begin alike. With causal attention the
tokens of that prefix have the same hidden states in each row, steered or not, so they run through the model as one
row, and what follows reads their keys and values from the cache. Going back, the rows' gradients meet in the shared
row: the sums are those of the rows computed whole, in another order.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, cast

from jaxtyping import Int
from peft import PeftModel
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from trimtab.tuners.steering import SteeringLayer, prompt_lengths

_RANDOM = (
    *("attention_dropout", "dropout", "layerdrop", "hidden_dropout"),
    *("jitter_noise", "router_jitter_noise", "input_jitter_noise"),
)
_BY_COLUMNS = ("mpt", "gpt_neo")  # biases, or local layers, by columns; their caches do not say so

LEAST_SAVING = 0.2
"""The share of a batch's tokens that must be saved: a second pass through the layers has a cost of its own."""


def shared_prefix(
    model: PreTrainedModel | PeftModel,
    input_ids: Int[Tensor, "rows tokens"],
    prompts: Int[Tensor, " rows"],
) -> int:
    """How many tokens at the beginning of all rows are worth computing once; 0 if that saves little or is not exact.

    The last token of each prompt is never among them, because it predicts the first of its answer; nor are tokens that
    an adapter steers for being among the last of one row's prompt (`positions`), where another row goes on.

    Args:
        model: a causal model, with or without adapters.
        input_ids: token ids, padded on the right.
        prompts: the number of prompt tokens of each row.
    """
    rows, tokens = input_ids.shape
    if rows < 2 or not can_share_prefixes(model):
        return 0
    ends = [policy.last for layer in _steering_layers(model) for policy in layer.policies.values()]
    most = int(prompts.min()) - max([1, *ends])
    if most * (rows - 1) < LEAST_SAVING * rows * tokens:
        return 0
    alike = (input_ids[:, :most] == input_ids[:1, :most]).all(dim=0)
    prefix = int(alike.long().cumprod(0).sum())
    return prefix if prefix * (rows - 1) >= LEAST_SAVING * rows * tokens else 0


def cached_prefix(
    model: PreTrainedModel | PeftModel, prefix: Int[Tensor, "groups tokens"], rows: int, prompt: int
) -> Cache:
    """The cache of `prefix`, computed as one row a group, for `rows` rows of each that go on from it; differentiable.

    Args:
        model: one for which `shared_prefix` found this prefix.
        prefix: the token ids, the same in each group; there is more than one where each has an adapter of its own.
        rows: how many rows of a group begin with it.
        prompt: the number of tokens of the shortest of their prompts.
    """
    # Nobody reads the logits of the prefix.
    head = model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][:, :0], *inputs[1:]))
    try:
        with prompt_lengths(model, [prompt] * len(prefix)):
            cache = cast(DynamicCache, model(input_ids=prefix, use_cache=True).past_key_values)
    finally:
        handle.remove()
    cache.batch_repeat_interleave(rows)
    return cache


def can_share_prefixes(model: PreTrainedModel | PeftModel) -> bool:
    """Whether `model`, as it is set up now, computes the same for a prefix in the cache as for one in each row.

    Not where layers keep something else than keys and values (state-space models) or nothing, where rotary frequencies
    depend on the length of the text, where gradient checkpointing turns the cache off, and where a pass of training
    draws random numbers (dropout, JoLA's gates).
    """
    base = _base(model)
    if base.config.is_encoder_decoder or "past_key_values" not in inspect.signature(type(base).forward).parameters:
        return False
    if _rotates_by_length(base):
        return False
    layers = DynamicCache(config=base.config).layers
    if not layers or any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers):
        return False
    return not (model.training and (_checkpoints(base) or draws_numbers(base)))


def tells_columns_apart(model: PreTrainedModel | PeftModel, columns: int) -> bool:
    """Whether padding between the tokens of a row changes what `model` sees: windows are cut by columns.

    Args:
        model: a causal model, with or without adapters.
        columns: how many a row has at most.
    """
    config = _base(model).config
    if config.model_type in _BY_COLUMNS:
        return True
    layers = DynamicCache(config=config).layers
    return any(isinstance(each, DynamicSlidingWindowLayer) and each.sliding_window < columns for each in layers)


def _base(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    return cast(PreTrainedModel, model.get_base_model()) if isinstance(model, PeftModel) else model


def _rotates_by_length(model: PreTrainedModel) -> bool:
    rope = getattr(model.config.get_text_config(decoder=True), "rope_parameters", None) or {}
    kinds = [each.get("rope_type") for each in (rope, *rope.values()) if isinstance(each, dict)]
    return any(kind in ("dynamic", "longrope") for kind in kinds)


def _checkpoints(model: PreTrainedModel) -> bool:
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def draws_numbers(model: PreTrainedModel) -> bool:
    """Whether a pass of training draws random numbers: dropout, or an adapter with gates that are drawn."""
    for module in model.modules():
        if isinstance(module, nn.Dropout) and module.p > 0:
            return True
        # Families that call the function keep the number under one of these names; a module may have the name too.
        if _is_positive(getattr(module, name, None) for name in _RANDOM):
            return True
    if _is_positive(getattr(model.config, name, None) for name in _RANDOM):
        return True
    interventions = (each for layer in _steering_layers(model) for each in layer.steering_interventions.values())
    return any(each.stochastic for each in interventions)


def _is_positive(shares: Iterable[Any]) -> bool:
    return any(isinstance(share, float) and share > 0 for share in shares)


def _steering_layers(model: nn.Module) -> list[SteeringLayer]:
    return [module for module in model.modules() if isinstance(module, SteeringLayer)]
