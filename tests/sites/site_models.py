"""Tiny random models of every family, built from their configs: no download, nothing accidentally 0 or 1."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

# head_dim is chosen apart from hidden_size / heads wherever the family leaves it free.
LLAMA = {
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2 = {"vocab_size": 61, "n_embd": 24, "n_layer": 3, "n_head": 4, "n_positions": 64}
GEMMA = {**LLAMA, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 4}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {**LLAMA, "head_dim": 8},
    "mistral": {**LLAMA, "head_dim": 8, "sliding_window": 4},
    "mixtral": {**LLAMA, "num_local_experts": 3, "num_experts_per_tok": 2},
    "qwen2": LLAMA,
    "qwen3": {**LLAMA, "head_dim": 8},
    # Layer 1 has a plain MLP between two mixtures of experts.
    "qwen3_moe": {**LLAMA, **EXPERTS, "head_dim": 8, "num_experts": 4, "mlp_only_layers": [1]},
    "gemma2": GEMMA,
    "gemma3_text": GEMMA,
    "phi3": LLAMA,
    "olmo2": LLAMA,
    "smollm3": LLAMA,
    "granite": {**LLAMA, "residual_multiplier": 0.22, "embedding_multiplier": 3.0},
    "gpt2": GPT2,
    "gpt_neox": {**LLAMA, "use_parallel_residual": True},
    "gpt_neox-sequential": {**LLAMA, "use_parallel_residual": False},
    "gptj": {**GPT2, "rotary_dim": 4},
    "bloom": {"vocab_size": 61, "hidden_size": 24, "n_layer": 3, "n_head": 4},
    "opt": {**LLAMA, "ffn_dim": 40, "word_embed_proj_dim": 16, "dropout": 0.0},
}


def tiny_config(name: str, **changes: Any) -> Any:
    """The config of a tiny model; `name` is a model type, "-" and what is particular about it may follow."""
    return AutoConfig.for_model(name.partition("-")[0], **{**FAMILIES.get(name, {}), **changes})


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Random parameters, the norms' and the biases' included: no factor is 1 and no term is 0 by accident."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 0.25 if parameter.dim() > 1 else 0.5
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator) + 0.1)


def tiny_model(name: str, **changes: Any) -> PreTrainedModel:
    """A tiny random causal model in float32 and evaluation mode: tiny_model("llama", num_hidden_layers=2)."""
    config = tiny_config(name, **changes)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    randomise(model)
    return model
