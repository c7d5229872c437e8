"""Tiny models with joint adapters, and an oracle of their constraint in float64."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from torch import Tensor, nn
from transformers import PreTrainedModel

from tiny_models import steering_layers, tiny_model, token_ids
from trimtab import JointConfig

IDS = token_ids(2, 8)
BOUND = 1e-6
"""On the share of W_up that may lie within what LoRA writes, in float32."""
WRITERS = {
    "llama": ("mlp.down_proj", "self_attn.o_proj"),
    "phi3": ("mlp.down_proj", "self_attn.o_proj"),
    "granite": ("mlp.down_proj", "self_attn.o_proj"),
    "gpt2": ("mlp.c_proj", "attn.c_proj"),
    "gpt_neox": ("mlp.dense_4h_to_h", "attention.dense"),
    "gptj": ("mlp.fc_out", "attn.out_proj"),
    "bloom": ("mlp.dense_4h_to_h", "self_attention.dense"),
    "opt": ("fc2", "self_attn.out_proj"),
}
"""Family: what its MLP and its attention write to the stream with, from the families' source code."""


def lora(r: int = 4, **options: Any) -> LoraConfig:
    """A LoRA half that scales by 2, on every matrix."""
    return LoraConfig(**{"r": r, "lora_alpha": 2 * r, "target_modules": "all-linear", **options})


def joint_model(base: PreTrainedModel | str = "llama", **options: Any) -> PeftModel:
    """A model with one joint adapter, LoRA r = 4 and steering r = 3, in evaluation mode."""
    base = tiny_model(base) if isinstance(base, str) else base
    config = JointConfig(**{"r": 3, "lora": lora(), "task_type": "CAUSAL_LM", **options})
    return get_peft_model(base, config).eval()


def with_two(**second: Any) -> Any:
    """A model with the joint adapters "default" (active) and "second", both of which do something."""
    model = joint_model()
    model.add_adapter("second", JointConfig(**{"r": 2, "lora": lora(r=2), **second}))
    draw(model, seed=0)
    return draw(model, seed=1, adapter="second").eval()


def alone(model: Any, name: str) -> Any:
    """A fresh model that has only the adapter `name` of another."""
    config = copy.deepcopy(model.peft_config[name])
    other = get_peft_model(tiny_model("llama"), config).eval()
    theirs = get_peft_model_state_dict(model, adapter_name=name)
    own = get_peft_model_state_dict(other)
    assert own.keys() == theirs.keys()
    with torch.no_grad():
        for key, tensor in own.items():
            tensor.copy_(theirs[key])
    return other


def draw(model: nn.Module, seed: int = 0, scale: float = 0.3, adapter: str = "default") -> Any:
    """Random numbers in every parameter of an adapter, so that neither half is a no-op; returns the model."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if f".{adapter}." in f"{name}." and ("lora_" in name or "steering" in name):
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return model


def logits(model: Any, **options: Any) -> Tensor:
    """The logits of IDS."""
    with torch.no_grad():
        return model(input_ids=IDS, **options).logits


def trained(model: nn.Module) -> dict[str, Tensor]:
    """A copy of every parameter that trains."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def written_by_lora(model: nn.Module, weights: tuple[str, ...] = ("mlp.down_proj",)) -> list[np.ndarray]:
    """For each decoder layer, all columns of the named weights' LoRA B, by name and in float64."""
    factors: dict[str, list[np.ndarray]] = {}
    for name, parameter in model.named_parameters():
        for weight in weights:
            if name.endswith(f".{weight}.lora_B.default.weight"):
                layer = name.removesuffix(f".{weight}.lora_B.default.weight")
                factors.setdefault(layer, []).append(parameter.detach().double().numpy())
    return [np.concatenate(found, axis=1) for found in factors.values()]


def overlaps(
    model: nn.Module, factors: list[np.ndarray], parameter: str = "up", tolerance: float = 1e-5
) -> list[float]:
    """For each layer ||Q^T M|| / ||M||, M the effective factor and Q from numpy's singular vectors; 0 for M = 0."""
    found = []
    for layer, factor in zip(steering_layers(model), factors, strict=True):
        left, s, _ = np.linalg.svd(factor, full_matrices=False)
        Q = left[:, s > tolerance * s[0]]
        matrix = getattr(layer.intervention("default"), parameter).detach().double().numpy()
        size = np.linalg.norm(matrix)
        found.append(float(np.linalg.norm(Q.T @ matrix) / size) if size else 0.0)
    return found
