"""How many parameters the method has on real models: the paper's percentages and sums by hand.

The models are built on the meta device from the sizes of their published configurations, written out here.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from trimtab import SteeringConfig

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama-3.2-1B": (
        "llama",
        {
            "vocab_size": 128256,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "tie_word_embeddings": True,
        },
    ),
    "Llama-3.1-8B": (
        "llama",
        {
            "vocab_size": 128256,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "tie_word_embeddings": False,
        },
    ),
    "gemma-3-1b": (
        "gemma3_text",
        {
            "vocab_size": 262144,
            "hidden_size": 1152,
            "intermediate_size": 6912,
            "num_hidden_layers": 26,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "tie_word_embeddings": True,
        },
    ),
    "Qwen3-4B": (
        "qwen3",
        {
            "vocab_size": 151936,
            "hidden_size": 2560,
            "intermediate_size": 9728,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "tie_word_embeddings": True,
        },
    ),
}

# All parameters, by hand: embeddings + layers x (attention + MLP + norms) + last norm (+ head).
BASE = {
    "Llama-3.2-1B": 128256 * 2048 + 16 * (2048 * (2048 + 512 + 512 + 2048) + 3 * 2048 * 8192 + 2 * 2048) + 2048,
    "Llama-3.1-8B": 2 * 128256 * 4096 + 32 * (4096 * (4096 + 1024 + 1024 + 4096) + 3 * 4096 * 14336 + 2 * 4096) + 4096,
    # four norms of the stream in a layer, and one of the queries and one of the keys
    "gemma-3-1b": 262144 * 1152 + 26 * (1152 * (1024 + 256 + 256 + 1024) + 3 * 1152 * 6912 + 4 * 1152 + 2 * 256) + 1152,
    "Qwen3-4B": 151936 * 2560 + 36 * (2560 * (4096 + 1024 + 1024 + 4096) + 3 * 2560 * 9728 + 2 * 2560 + 2 * 128) + 2560,
}


def counts(name: str, **options: Any) -> tuple[int, int]:
    """Trainable and other parameters."""
    model_type, sizes = MODELS[name]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **sizes))
        adapted = get_peft_model(model, SteeringConfig(**options))
    trainable, everything = adapted.get_nb_trainable_parameters()
    return trainable, everything - trainable


@pytest.mark.parametrize(
    ("name", "options", "percent", "digits"),
    [
        ("Llama-3.2-1B", {"r": 8}, 0.042, 3),
        ("Llama-3.2-1B", {"r": 1}, 0.0053, 4),
        ("Llama-3.2-1B", {"intervention": "vector"}, 0.0027, 4),
        ("Llama-3.1-8B", {"r": 8}, 0.026, 3),
        ("Llama-3.1-8B", {"r": 16}, 0.052, 3),
        # Not in the paper: 2 d r L over the base, by hand.
        ("gemma-3-1b", {"r": 8}, 0.048, 3),
        ("gemma-3-1b", {"intervention": "vector"}, 0.0030, 4),
        ("Qwen3-4B", {"r": 8}, 0.037, 3),
        ("Qwen3-4B", {"intervention": "vector"}, 0.0023, 4),
    ],
)
def test_percentages(name: str, options: dict[str, Any], percent: float, digits: int) -> None:
    """Percent of the model's own parameters, to the digits that the paper prints."""
    trainable, base = counts(name, **options)
    assert base == BASE[name]
    assert round(100 * trainable / base, digits) == percent


@pytest.mark.parametrize(
    ("name", "options", "by_hand"),
    [
        ("Llama-3.2-1B", {"r": 8}, 524_288),
        ("Llama-3.2-1B", {"r": 8, "use_bias": True}, 524_288 + 32_768),
        ("Llama-3.2-1B", {"intervention": "vector"}, 32_768),
        ("Llama-3.2-1B", {"r": 8, "layers": [0, 15]}, 65_536),
        ("Llama-3.1-8B", {"r": 16}, 4_194_304),
        ("gemma-3-1b", {"r": 8}, 479_232),
        ("gemma-3-1b", {"r": 8, "site": "heads"}, 425_984),
        ("Qwen3-4B", {"r": 8}, 1_474_560),
        ("Qwen3-4B", {"r": 8, "site": "heads"}, 2_359_296),
    ],
)
def test_counts(name: str, options: dict[str, Any], by_hand: int) -> None:
    """2 d r a layer, d more with a bias, d for a vector; the heads' d is heads x head_dim."""
    assert counts(name, **options)[0] == by_hand
