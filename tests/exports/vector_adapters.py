"""Tiny models with adapters of vectors, saved as users save them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedModel

from tiny_models import draw_adapters, tiny_model
from trimtab import SteeringConfig


def plain(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The base in `folder`."""
    return AutoModelForCausalLM.from_pretrained(folder / "base", dtype=dtype).eval()


def saved(folder: Path, family: str = "llama", dtype: torch.dtype = torch.float32, **options: Any) -> PeftModel:
    """Write a base into `folder`/base and a random adapter of it into `folder`/adapter; the model with the adapter."""
    tiny_model(family).save_pretrained(folder / "base")
    config = SteeringConfig(**{"intervention": "vector", "task_type": "CAUSAL_LM", **options})
    model = get_peft_model(plain(folder, dtype), config)
    draw_adapters(model)
    model.save_pretrained(str(folder / "adapter"))
    return model.eval()
