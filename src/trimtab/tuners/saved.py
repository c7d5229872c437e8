"""An adapter's folder onto a base model, checked whatever the method is.

Steering and joint adapters check themselves, however they are loaded. PEFT's own methods do not: a matrix that a LoRA's
file lacks starts anew, a surplus one is dropped, and another base with the same shapes is not noticed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from peft import PeftModel, PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils import CONFIG_NAME
from transformers import PreTrainedModel

from trimtab.checkpoints import read_json
from trimtab.files import write_text
from trimtab.registry import check_choice
from trimtab.tuners.steering.attachment import Attachment
from trimtab.tuners.steering.files import WEIGHTS, check_base, file_tensors
from trimtab.tuners.steering.hosts import base_facts

BASE = "base.json"
"""Beside a LoRA adapter's file: what it was made for. A steering adapter's configuration says it itself."""

_NAME = "default"


def save_base(folder: Path, base: PreTrainedModel) -> None:
    """Write beside an adapter what it was made for: model type, hidden size, number of layers."""
    write_text(folder / BASE, json.dumps(base_facts(base), indent=1) + "\n")


def require_adapter(folder: Path) -> None:
    """Refuse a folder that holds no adapter, before anything else is done: PEFT would look for its name on the hub.

    Raises:
        FileNotFoundError: there is no such directory, or it has no adapter_config.json.
        ValueError: that file is cut off, or names no method that PEFT knows.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no adapter at {folder}: no such directory.")
    if not (folder / CONFIG_NAME).is_file():
        held = "it holds a whole model (config.json)" if (folder / "config.json").is_file() else "nor a config.json"
        raise FileNotFoundError(f"There is no adapter at {folder}: the directory has no {CONFIG_NAME}, {held}.")
    config = read_json(folder / CONFIG_NAME)
    if "peft_type" not in config:
        raise ValueError(f"{folder / CONFIG_NAME} is damaged: it lacks peft_type, the adapter's method.")
    known = [each.value for each in PEFT_TYPE_TO_CONFIG_MAPPING]
    check_choice(f"peft_type in {folder / CONFIG_NAME}", config["peft_type"], known)


def load_adapter(base: PreTrainedModel, folder: Path) -> PeftModel:
    """`base` with the adapter of `folder` on it, ready to answer; all or nothing.

    Args:
        base: a model without adapters.
        folder: an adapter's directory. One that says nothing of its base is taken at its word.

    Raises:
        ValueError: a pickle, a damaged file, a value that is not finite, another base, or a missing or surplus key (of
            LoRA, DoRA, steering and joint adapters); or as `require_adapter`.
        FileNotFoundError: there is no adapter.
    """
    require_adapter(folder)
    file_tensors(folder / WEIGHTS)  # PEFT would read a pickle too
    if (folder / BASE).is_file():
        check_base(read_json(folder / BASE), base_facts(base))
    before = Attachment(base)
    missing: list[str] = []
    surplus: list[str] = []

    def note(_: Any, found: Any) -> None:
        missing.extend(found.missing_keys)
        surplus.extend(found.unexpected_keys)

    handle = base.register_load_state_dict_post_hook(note)
    try:
        tuned = PeftModel.from_pretrained(base, str(folder)).eval()
        if tuned.peft_config[_NAME].peft_type == PeftType.LORA:
            _check_lora(folder, missing, surplus)
    except Exception as error:
        before.undo(_NAME)
        if not isinstance(error, RuntimeError) or "size mismatch" not in str(error):
            raise
        first = next(line.strip() for line in str(error).splitlines() if "size mismatch" in line)
        raise ValueError(f"The adapter in {folder} was made for another base model: {first}") from error
    finally:
        handle.remove()
    return tuned


def _check_lora(folder: Path, missing: list[str], surplus: list[str]) -> None:
    """Refuse what PEFT found missing (the base's own weights are no part of the file) or had no place for."""
    lacking = [key for key in missing if f".{_NAME}" in key and (".lora_" in key or ".modules_to_save." in key)]
    for problem, keys in (("lacks", lacking), ("has the surplus key", surplus)):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            name = min(keys).removeprefix("base_model.model.").replace(f".{_NAME}", "")
            raise ValueError(
                f"The adapter in {folder} does not fit its configuration on this model: it {problem} {name}{more}."
            )
