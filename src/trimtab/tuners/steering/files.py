"""The files of a saved adapter: what is checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from peft.utils.constants import EMBEDDING_LAYER_NAMES
from safetensors import SafetensorError, safe_open

WEIGHTS = "adapter_model.safetensors"
PICKLED_WEIGHTS = "adapter_model.bin"
INTERVENTIONS = "steering_interventions"
"""The part of a parameter's name that says it belongs to a steering adapter."""

LOADING_NOTE = """
## Loading

This is a steering adapter made with [trimtab](https://pypi.org/project/trimtab/). PEFT knows the method after
`import trimtab`; without it loading stops with `KeyError: 'STEERING'`.

    import trimtab
    from peft import AutoPeftModelForCausalLM

    model = AutoPeftModelForCausalLM.from_pretrained("this/adapter")
"""


def adapter_tensors(folder: Path) -> dict[str, tuple[int, ...]] | None:
    """Names and shapes in a folder's adapter file; None if the folder holds none (a configuration alone).

    Raises:
        ValueError: the file is a pickle, cannot be read, or holds a value that is not finite.
    """
    path = folder / WEIGHTS
    if not path.exists():
        if (folder / PICKLED_WEIGHTS).exists():
            raise ValueError(f"{folder / PICKLED_WEIGHTS} is a pickle, which can run code; only {WEIGHTS} is read.")
        return None
    shapes: dict[str, tuple[int, ...]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # a safetensors handle is no mapping
                tensor = file.get_tensor(name)
                shapes[name] = tuple(tensor.shape)
                if not torch.isfinite(tensor).all():
                    raise ValueError(f"{path}: {name} holds a value that is not finite (NaN or infinity).")
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or damaged: {error}") from error
    return shapes


def check_keys(
    source: str,
    found: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, tuple[int, ...]],
    other_modules: Iterable[str] = (),
) -> None:
    """Compare the tensors of a file with those of the adapter that was built for it.

    Args:
        source: the file or folder, for the message.
        found: names and shapes in the file.
        expected: names and shapes that the configuration asks for on this base model.
        other_modules: names of modules whose weights are saved beside the adapter's (`modules_to_save`).

    Raises:
        ValueError: a missing key, a surplus key or another shape; it names the key.
    """
    allowed = (*other_modules, *EMBEDDING_LAYER_NAMES)
    missing = sorted(expected.keys() - found.keys())
    surplus = sorted(
        key
        for key in found.keys() - expected.keys()
        if INTERVENTIONS in key or not any(f".{module}." in f".{key}." for module in allowed)
    )
    for problem, keys in (("lacks", missing), ("has the surplus key", surplus)):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise ValueError(f"{source} does not fit its configuration on this model: it {problem} {keys[0]}{more}.")
    for key in sorted(expected):
        if found[key] != expected[key]:
            raise ValueError(
                f"{source} was made for another base model: {key} has shape {list(found[key])}, "
                f"this model needs {list(expected[key])}."
            )


def add_loading_note(folder: Path) -> None:
    """Append how to load the adapter to the model card that PEFT writes, once."""
    card = folder / "README.md"
    if card.exists() and LOADING_NOTE not in (text := card.read_text(encoding="utf-8")):
        temporary = card.with_suffix(".md.tmp")
        temporary.write_text(text + LOADING_NOTE, encoding="utf-8")
        temporary.rename(card)
