"""Tiny subjects of analyses, and their hidden states prompt by prompt, read with hooks of the tests' own."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from tiny_language import byte_tokenizer
from tiny_models import draw_adapters, tiny_model, token_ids
from trimtab import SteeringConfig
from trimtab.analysis import Subject


def prompts(count: int = 12, longest: int = 14) -> tuple[tuple[int, ...], ...]:
    """Prompts of different lengths, from 2 tokens on."""
    lengths = [2 + (5 * index) % (longest - 1) for index in range(count)]
    return tuple(tuple(token_ids(1, length, seed=index)[0].tolist()) for index, length in enumerate(lengths))


def subject(model: Any = "llama", tuned: PreTrainedModel | None = None, **of_prompts: int) -> Subject:
    """A subject with prompts of different lengths."""
    model = tiny_model(model) if isinstance(model, str) else model
    return Subject(model, byte_tokenizer(), prompts(**of_prompts), tuned)


def moved(name: str = "llama", size: float = 0.02, seed: int = 7) -> PreTrainedModel:
    """The tiny model with all weights moved a little: what fine-tuning leaves."""
    model = tiny_model(name)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return model


def steered(name: str = "llama", **config: Any) -> PeftModel:
    """A tiny model with a random steering adapter."""
    model = get_peft_model(tiny_model(name), SteeringConfig(task_type="CAUSAL_LM", **{"r": 3, **config})).eval()
    draw_adapters(model)
    return model


def with_lora(name: str = "llama") -> PeftModel:
    """A tiny model with a random LoRA on every matrix."""
    model = get_peft_model(tiny_model(name), LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_" in key:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def alone(model: nn.Module, names: dict[str, tuple[str, str]], prompt: tuple[int, ...]) -> dict[str, np.ndarray]:
    """What passes through modules as the model reads one prompt without padding, (tokens, width) in float64.

    Args:
        model: the model.
        names: by key, a module's name and "input" or "output".
        prompt: token ids.
    """
    seen: dict[str, np.ndarray] = {}

    def remember(_: nn.Module, args: Any, output: Any, key: str, side: str) -> None:
        tensor = args[0] if side == "input" else output if torch.is_tensor(output) else output[0]
        seen[key] = tensor.double().flatten(0, -2).numpy()

    handles = [
        model.get_submodule(name).register_forward_hook(partial(remember, key=key, side=side))
        for key, (name, side) in names.items()
    ]
    with torch.no_grad():
        model(input_ids=torch.tensor([prompt]), use_cache=False)
    for handle in handles:
        handle.remove()
    return seen


def tokens_of(model: nn.Module, name: str, side: str, chosen: tuple[tuple[int, ...], ...], skip: int = 1) -> np.ndarray:
    """What passes through one module at the tokens of all prompts but the first `skip` of each."""
    return np.concatenate([alone(model, {"it": (name, side)}, prompt)["it"][skip:] for prompt in chosen])
