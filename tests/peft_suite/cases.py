"""The configurations that PEFT's tests are run with, in the form of PEFT's own lists."""

from __future__ import annotations

from typing import Any

import pytest

from trimtab import SteeringConfig

VECTOR: dict[str, Any] = {"intervention": "vector"}


def _custom(name: str, model: str, **settings: Any) -> tuple[str, str, type[SteeringConfig], dict[str, Any]]:
    return name, model, SteeringConfig, settings


CUSTOM_MODELS = [
    _custom("MLP low-rank, a regular expression", "MLP", target_modules="lin0"),
    _custom("MLP low-rank, first layer", "MLP", target_modules=["lin0"]),
    _custom("MLP low-rank, last layer", "MLP", target_modules=["lin1"], r=2),
    _custom("MLP low-rank, both layers", "MLP", target_modules=["lin0", "lin1"], r=2),
    _custom("MLP low-rank, one excluded", "MLP", target_modules=["lin0", "lin1"], exclude_modules=["lin1"]),
    _custom("MLP low-rank, saving lin1 too", "MLP", target_modules=["lin0"], modules_to_save=["lin1"]),
    _custom("MLP low-rank, SiLU", "MLP", target_modules=["lin0"], activation="silu"),
    _custom("MLP low-rank, use_bias", "MLP", target_modules=["lin0"], use_bias=True),
    _custom("MLP low-rank, normalize", "MLP", target_modules=["lin0"], normalize=True),
    _custom("MLP low-rank, strength", "MLP", target_modules=["lin0"], strength=-0.5),
    _custom("MLP vector, a regular expression", "MLP", target_modules="lin1", **VECTOR),
    _custom("MLP vector, both layers", "MLP", target_modules=["lin0", "lin1"], **VECTOR),
    _custom("MLP vector, saving lin1 too", "MLP", target_modules=["lin0"], modules_to_save=["lin1"], **VECTOR),
    _custom("MLP vector, strength", "MLP", target_modules=["lin0"], strength=-0.5, **VECTOR),
    _custom("LayerNorm low-rank", "MLP_LayerNorm", target_modules=["layernorm1"]),
    _custom("LayerNorm vector", "MLP_LayerNorm", target_modules=["layernorm0", "layernorm1"], **VECTOR),
    # At strength 1 the few steps of PEFT's test move W_down by less than it can tell.
    _custom("Embedding low-rank", "EmbConv1D", target_modules=["emb"], r=3, strength=10.0),
    _custom("transformers Conv1D low-rank", "EmbConv1D", target_modules=["conv1d"], r=1),
    _custom("Embedding and Conv1D low-rank", "EmbConv1D", target_modules=["emb", "conv1d"], r=1, strength=10.0),
    _custom("Embedding vector", "EmbConv1D", target_modules=["emb"], **VECTOR),
    _custom("transformers Conv1D vector", "EmbConv1D", target_modules=["conv1d"], **VECTOR),
    _custom("Linear after Conv2d low-rank", "Conv2d", target_modules=["lin0"], r=2),
    _custom("Linear after Conv2d vector", "Conv2d", target_modules=["lin0"], **VECTOR),
    _custom("MultiheadAttention low-rank", "MHA", target_modules=["mha"]),
    _custom("MultiheadAttention vector", "MHA", target_modules=["mha", "lin0"], **VECTOR),
    _custom("own linear module low-rank", "MlpUsingParameters", target_modules=["lin0"]),
    _custom("own linear module vector", "MlpUsingParameters", target_modules=["lin0"], **VECTOR),
]
"""For PEFT's TEST_CASES: name, model, configuration class and arguments."""

_RANDOM = {"init_weights": False}
_LOW_RANK_0 = {"target_modules": ["lin0"], **_RANDOM}
_LOW_RANK_1 = {"target_modules": ["lin1"], "r": 2, **_RANDOM}
_VECTOR_0 = {"target_modules": ["lin0"], **VECTOR, **_RANDOM}
_VECTOR_1 = {"target_modules": ["lin1"], **VECTOR, **_RANDOM}

TWO_ADAPTERS = [
    ("low-rank, same layer", "steering", SteeringConfig, _LOW_RANK_0, {**_LOW_RANK_0, "use_bias": True}),
    ("low-rank, different layers", "steering", SteeringConfig, _LOW_RANK_0, _LOW_RANK_1),
    ("vector, same layer", "steering", SteeringConfig, _VECTOR_0, {**_VECTOR_0, "strength": -0.5}),
    ("vector, different layers", "steering", SteeringConfig, _VECTOR_0, _VECTOR_1),
    ("low-rank and vector, same layer", "steering", SteeringConfig, _LOW_RANK_0, _VECTOR_0),
]
"""For PEFT's MULTIPLE_ACTIVE_ADAPTERS_TEST_CASES: name, method, class, arguments of the two adapters."""

TWO_ADAPTERS_BY_ROW = [
    ("low-rank", SteeringConfig(**_LOW_RANK_0), SteeringConfig(**{**_LOW_RANK_0, "r": 16})),
    ("vector", SteeringConfig(**_VECTOR_0), SteeringConfig(**_VECTOR_0)),
    ("low-rank and vector", SteeringConfig(**_LOW_RANK_0), SteeringConfig(**_VECTOR_0)),
]
"""For PEFT's MIXED_ADAPTER_TEST_CASES: name and the two configurations."""


def _decoder(name: str, **settings: Any) -> Any:
    return pytest.param(SteeringConfig, {"task_type": "CAUSAL_LM", **settings}, id=name)


DECODERS = [
    _decoder("low-rank"),
    _decoder("vector", **VECTOR),
    _decoder("mlp-silu-bias", site="mlp", activation="silu", use_bias=True),
    _decoder("attention-vector", site="attention", **VECTOR),
    _decoder("heads-normalize", site="heads", normalize=True),
    _decoder("last-prompt", positions="last_prompt"),
]
"""For PEFT's ALL_CONFIGS: class and arguments."""
