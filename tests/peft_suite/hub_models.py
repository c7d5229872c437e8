"""Stand-ins for the models that PEFT's tests load from the hub: the same names and families, tiny and random.

They are saved under their names into one folder. The tests run in that folder, so `from_pretrained` finds a
directory called "owner/name" and loads it as it loads any other; nothing is patched.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,  # or two layers of this width would hardly matter beside the embedding
    "bos_token_id": 0,
    "eos_token_id": 59,
    "pad_token_id": 59,  # PEFT's comparison of generations takes the end token for padding
}
GATED: dict[str, Any] = {**SIZES, "intermediate_size": 32, "num_key_value_heads": 2}
GPT: dict[str, Any] = {name: value for name, value in SIZES.items() if name != "max_position_embeddings"}

DECODERS: dict[str, dict[str, Any]] = {
    "peft-internal-testing/tiny-random-OPTForCausalLM": {"model_type": "opt", **SIZES, "ffn_dim": 32},
    "peft-internal-testing/tiny-random-GPT2LMHeadModel": {"model_type": "gpt2", **GPT, "n_positions": 64},
    "peft-internal-testing/tiny-random-GPTJForCausalLM": {
        "model_type": "gptj",
        **GPT,
        "n_positions": 64,
        "rotary_dim": 4,
        "tie_word_embeddings": False,
    },
    "trl-internal-testing/tiny-random-LlamaForCausalLM": {"model_type": "llama", **GATED},
    "peft-internal-testing/tiny-dummy-qwen2": {"model_type": "qwen2", **GATED},
    "hf-internal-testing/tiny-random-Gemma3ForCausalLM": {
        "model_type": "gemma3_text",
        **GATED,
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "sliding_window": 4,
    },
}
"""Config by the name that PEFT's tests use."""

CLASSIFIERS: dict[str, dict[str, Any]] = {
    "bert-base-uncased": {"model_type": "bert", **SIZES, "intermediate_size": 32},
}


def save_all(folder: Path) -> Path:
    """Write every model below `folder`, with the same weights each time."""
    kinds = ((DECODERS, AutoModelForCausalLM), (CLASSIFIERS, AutoModelForSequenceClassification))
    for models, auto_class in kinds:
        for name, settings in models.items():
            torch.manual_seed(0)
            auto_class.from_config(AutoConfig.for_model(**settings)).save_pretrained(folder / name)
    return folder
