"""A model's files: what is loaded is all there, and for a model of our own nothing else is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, PreTrainedModel

_JSON_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
)
"""What transformers may read of a model's directory; each holds one JSON object."""


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ValueError: it holds none, as when it is cut off; names the file.
        OSError: it cannot be read.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is truncated or damaged: {error}.") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged: it holds no JSON object.")
    return found


def require_json(folder: Path) -> None:
    """Refuse a model's or tokenizer's directory of which a JSON file is cut off.

    transformers' own errors name no file, and without a readable generation_config.json it goes on in silence.

    Raises:
        ValueError: names the file.
    """
    for name in _JSON_FILES:
        if (folder / name).is_file():
            read_json(folder / name)


def read_checkpoint(path: str, *, exact: bool = False, **options: Any) -> PreTrainedModel:
    """`AutoModelForCausalLM.from_pretrained` on safetensors, without its silent repairs.

    transformers draws what a file lacks at random, drops what it has too much, and puts both into a report.

    Args:
        path: a directory or a hub id.
        exact: refuse surplus tensors and values that are not finite too: for a model that a training run has saved.
            Published ones may hold parts that a causal language model leaves out.
        options: of `from_pretrained`.

    Raises:
        ValueError: a file is truncated or damaged, lacks a tensor (tied ones are there once), has one of another shape,
            or is not `exact`.
        OSError: there is no such model.
    """
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are errors below, which name the tensor
            **options,
        )
    except SafetensorError as error:
        raise ValueError(f"{_damaged(path)} is truncated or damaged: {error}.") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"A JSON file of the model in {path} is truncated or damaged: {error}.") from error
    model: PreTrainedModel
    model, found = loaded
    source = f"The model in {path}"
    problems = {"lacks": found["missing_keys"], "has the surplus key": found["unexpected_keys"] if exact else ()}
    for problem, keys in problems.items():
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise ValueError(f"{source} does not fit its configuration: it {problem} {min(keys)}{more}.")
    for name, there, needed in found["mismatched_keys"]:
        raise ValueError(
            f"{source} does not fit its configuration: {name} has shape {list(there)}, the model needs {list(needed)}."
        )
    for name, parameter in model.named_parameters() if exact else ():
        if not torch.isfinite(parameter).all():
            raise ValueError(f"{source}: {name} holds a value that is not finite (NaN or infinity).")
    return model


def _damaged(path: str) -> str:
    """The file in a model's directory that cannot be read; of a model of the hub, the model."""
    for file in sorted(Path(path).glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt"):
                pass
        except SafetensorError:
            return str(file)
    return f"A file of the model {path}"
