"""The check of an adapter that transformers loads (`load_adapter`, `AutoModelForCausalLM.from_pretrained`).

transformers attaches the adapter first, reads its file afterwards, and puts missing and surplus keys into a report:
a damaged adapter would stay attached, fresh. It has no hook in between. So the model gets, on the instance and
for one call, its own loading method with the check in front.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from trimtab.tuners.steering.attachment import Attachment
from trimtab.tuners.steering.files import (
    INTERVENTIONS,
    check_finite,
    check_keys,
    file_tensors,
    saved_beside,
    without_prefix,
)

_LOADER = "_load_pretrained_model"


def check_on_load(
    model: nn.Module, adapter_name: str, expected: Mapping[str, tuple[int, ...]], before: Attachment
) -> None:
    """Check what transformers loads into `model` next; if it is no such adapter, go back to `before` and raise.

    Args:
        model: the model that the adapter has just been attached to; nothing happens if transformers cannot load it.
        adapter_name: its name.
        expected: names and shapes of its parameters.
        before: the model without it.
    """
    if hasattr(type(model), _LOADER):
        model.__dict__[_LOADER] = partial(_load, adapter_name, expected, before)


def forget_check(model: nn.Module) -> None:
    """PEFT loads the adapter itself, which is checked elsewhere."""
    model.__dict__.pop(_LOADER, None)


def _load(
    adapter_name: str, expected: Mapping[str, tuple[int, ...]], before: Attachment, model: Any, **options: Any
) -> Any:
    forget_check(model)
    keys = options.get("expected_keys")
    if keys is not None and not any(f"{INTERVENTIONS}.{adapter_name}." in key for key in keys):
        # Another adapter: this one was attached by a saved configuration, to be fresh.
        return getattr(model, _LOADER)(model=model, **options)
    try:
        beside = saved_beside(model, model.peft_config[adapter_name].modules_to_save)
        check_keys("The adapter's file", without_prefix(_shapes(**options)), expected, beside)
        return getattr(model, _LOADER)(model=model, **options)
    except Exception:
        before.undo(adapter_name)
        raise


def _shapes(
    state_dict: Mapping[str, Any] | None, checkpoint_files: list[str] | None, **_: Any
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of what is about to be loaded."""
    if state_dict is None:
        return {name: shape for file in checkpoint_files or () for name, shape in file_tensors(Path(file)).items()}
    for name, tensor in state_dict.items():
        check_finite("The state dict", name, tensor)
    return {name: tuple(tensor.shape) for name, tensor in state_dict.items()}
