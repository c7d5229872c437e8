"""Tiny models in float64, what they are tuned into, and texts, for the tests of distillation."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import PreTrainedModel

from tiny_models import draw_adapters, steering_layers, tiny_model
from trimtab import SteeringConfig
from trimtab.distillation import twin
from trimtab.encoding import Encoded


def base_model(family: str = "gpt2") -> PreTrainedModel:
    """In float64. GPT-2's norms compute in it too, where those of Llama go through float32."""
    return tiny_model(family).double()


def steered_teacher(base: PreTrainedModel, scale: float = 0.1, **options: Any) -> PeftModel:
    """A copy of the base with a random linear adapter after every block."""
    tuned = get_peft_model(twin(base), SteeringConfig(task_type="CAUSAL_LM", **{"r": 2, **options}))
    draw_adapters(tuned, scale=scale)
    return tuned.eval()


def lora_teacher(base: PreTrainedModel, scale: float = 0.2, **options: Any) -> PeftModel:
    """A copy of the base with a random LoRA on its linear layers."""
    targets = {"target_modules": "all-linear", **options}
    tuned = get_peft_model(twin(base), LoraConfig(r=4, task_type="CAUSAL_LM", **targets))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_" in name:
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return tuned.eval()


def texts(count: int = 40, seed: int = 0, answer: int = 3) -> list[Encoded]:
    """Random token ids: prompts of 4 to 12 tokens, answers of `answer`."""
    generator = torch.Generator().manual_seed(seed)
    draw = [torch.randint(3, 61, (4 + i % 9 + answer,), generator=generator).tolist() for i in range(count)]
    return [Encoded(ids[:-answer], ids[-answer:]) for ids in draw]


def maps(model: PeftModel) -> list[Tensor]:
    """up down of every layer's adapter."""
    adapters = [layer.intervention("default") for layer in steering_layers(model)]
    return [(each.up @ each.down).detach() for each in adapters]
