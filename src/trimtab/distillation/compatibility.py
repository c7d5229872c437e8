"""Can the one model be distilled onto the other? Asked before anything long starts."""

from __future__ import annotations

import copy
from pathlib import PurePath
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trimtab.models import AnyModel, model_name
from trimtab.tuners.steering import SteeringConfig
from trimtab.tuners.steering.hosts import base_facts

_RELATED = 0.5  # fine-tuning moves embeddings by a few per cent of their norm; independent ones differ by 140 %


def twin(base: PreTrainedModel) -> PreTrainedModel:
    """A second model with the same weights in the same memory, to put a LoRA on: its modules are its own.

    Weights of either must not be changed in place (by merging) as long as both are used.
    """
    return copy.deepcopy(base, {id(tensor): tensor for tensor in (*base.parameters(), *base.buffers())})


def require_same_tokens(base: PreTrainedTokenizerBase, tuned: PreTrainedTokenizerBase) -> None:
    """Raise an error that names a token unless both tokenizers give every token the same id.

    Raises:
        ValueError: they differ.
    """
    ours, theirs = base.get_vocab(), tuned.get_vocab()
    for token in sorted({*ours, *theirs}):
        if ours.get(token) != theirs.get(token):
            raise ValueError(
                f"The tuned model has another tokenizer than the base: the token {token!r} is "
                f"{_id(theirs.get(token))} there and {_id(ours.get(token))} in the base. Both must read the same ids."
            )


def require_related(base: PreTrainedModel, tuned: AnyModel) -> None:
    """Raise an error unless `tuned` can be `base` after fine-tuning.

    Raises:
        ValueError: `base` carries an adapter; another model type, hidden size, number of layers or size of the
            vocabulary; a LoRA that names another base; embeddings that are not the base's, moved a little; or an
            adapter of `tuned` that works by prompts, which are no part of the stream.
    """
    if isinstance(base, PeftModel):
        raise ValueError("The base already carries an adapter: pass base.unload().")
    if base is tuned:
        raise ValueError("Base and tuned model are one object: there is nothing to distil.")
    ours, theirs = _facts(base), _facts(tuned)
    for fact, value in ours.items():
        if theirs.get(fact) != value:
            raise ValueError(
                f"The tuned model is not made from this base: its {fact} is {theirs.get(fact)!r}, the base's {value!r}."
            )
    if isinstance(tuned, PeftModel):
        _require_own_base(base, tuned)
    models: tuple[Any, ...] = (base, tuned)
    before, after = (model.get_input_embeddings().weight.detach() for model in models)
    if before.shape != after.shape:
        raise ValueError(f"The base's embeddings are {list(before.shape)}, the tuned model's {list(after.shape)}.")
    moved = _relative_distance(before, after)
    if moved > _RELATED:
        raise ValueError(
            f"The tuned model is not made from this base: its embeddings differ from the base's by {moved:.0%} of "
            "their norm, where fine-tuning moves them by a few per cent. Name the model that it was tuned from."
        )


def require_linear(config: SteeringConfig) -> None:
    """Raise an error unless the adapter of `config` has a closed form: linear or a vector, after the block.

    Raises:
        ValueError: another intervention or site, an activation, the names of modules, or a strength other than 1.
    """
    if config.intervention not in ("low_rank", "vector"):
        raise ValueError(
            f"The intervention {config.intervention!r} has no closed form. Choose low_rank or vector, and train others."
        )
    if config.activation is not None:
        raise ValueError(f"A shift with activation={config.activation!r} has no closed form: leave it linear.")
    if config.site != "block" or config.target_modules is not None:
        raise ValueError(
            f"Distillation fits the stream after the block: site={config.site!r} must be 'block', and target_modules "
            "must be left out."
        )
    if config.strength != 1.0:
        raise ValueError(f"An adapter is fitted at strength 1, not {config.strength}: turn its dial afterwards.")


def _facts(model: AnyModel) -> dict[str, object]:
    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    return {**base_facts(inner), "vocabulary": inner.config.get_text_config().vocab_size}


def _require_own_base(base: PreTrainedModel, tuned: PeftModel) -> None:
    for name in tuned.active_adapters:
        config = tuned.peft_config[name]
        if config.is_prompt_learning:
            raise ValueError(
                f"The tuned model's adapter {name!r} ({config.peft_type}) puts prompts of its own in front of the "
                "text: its stream has other positions than the base's."
            )
        # Of paths the last part: the same model may lie elsewhere.
        ours, theirs = (PurePath(each or "").name for each in (model_name(base), config.base_model_name_or_path))
        if ours and theirs and ours.lower() != theirs.lower():
            raise ValueError(
                f"The tuned model's adapter {name!r} was trained on {config.base_model_name_or_path!r}, not on "
                f"{model_name(base)!r}. Name that base; if one model has two names, write this one into the adapter's "
                "adapter_config.json as base_model_name_or_path."
            )


@torch.no_grad()
def _relative_distance(before: torch.Tensor, after: torch.Tensor) -> float:
    if before.data_ptr() == after.data_ptr():
        return 0.0
    before, after = before.float(), after.to(before.device).float()
    return float((after - before).norm() / before.norm().clamp(min=torch.finfo(torch.float32).tiny))


def _id(number: int | None) -> str:
    return "not known" if number is None else f"id {number}"
