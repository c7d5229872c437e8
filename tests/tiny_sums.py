"""A few sums to train on, and the two parts of what was trained: the adapter and the base."""

from __future__ import annotations

from datasets import Dataset
from peft import PeftModel, get_peft_model_state_dict
from torch import Tensor, nn

from tiny_language import byte_tokenizer
from trimtab.tuners.steering.files import INTERVENTIONS


def sums(count: int = 16) -> list[tuple[str, str]]:
    """Prompts and completions of unequal length, such as "7+1=" and "8."."""
    return [(f"{7 * i % 23}+{i}=", f"{7 * i % 23 + i}.") for i in range(count)]


def tokenised_sums(count: int = 16) -> Dataset:
    """The sums as token ids, with labels on the completion only."""
    tokenizer = byte_tokenizer()
    rows = []
    for prompt, completion in sums(count):
        asked, answer = tokenizer(prompt).input_ids, tokenizer(completion).input_ids
        rows.append({"input_ids": asked + answer, "labels": [-100] * len(asked) + answer})
    return Dataset.from_list(rows)


def adapter_weights(model: PeftModel, adapter_name: str = "default") -> dict[str, Tensor]:
    """A copy of what is saved of an adapter."""
    state = get_peft_model_state_dict(model, adapter_name=adapter_name)
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def base_weights(model: nn.Module) -> dict[str, Tensor]:
    """The base model's own weights, under the names that they have without PEFT."""
    return {
        name.removeprefix("base_model.model."): tensor
        for name, tensor in model.state_dict().items()
        if INTERVENTIONS not in name
    }
