"""The files of a saved adapter: what is checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from peft.utils.constants import EMBEDDING_LAYER_NAMES
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

WEIGHTS = "adapter_model.safetensors"
PICKLED_WEIGHTS = "adapter_model.bin"
INTERVENTIONS = "steering_interventions"
"""The part of a parameter's name that says it belongs to a steering adapter."""

LOADING_NOTE = """
## Loading

This is a {kind} adapter made with trimtab. PEFT knows the method after
`import trimtab`; without it loading stops with `KeyError: '{type}'`.

    import trimtab
    from peft import AutoPeftModelForCausalLM

    model = AutoPeftModelForCausalLM.from_pretrained("this/adapter")
"""


def adapter_tensors(folder: Path) -> dict[str, tuple[int, ...]] | None:
    """Names and shapes in a folder's adapter file; None if the folder holds none (a configuration alone).

    Raises:
        ValueError: the file is a pickle, cannot be read, or holds a value that is not finite.
    """
    if not any((folder / name).exists() for name in (WEIGHTS, PICKLED_WEIGHTS)):
        return None
    return file_tensors(folder / WEIGHTS)


def file_tensors(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes in an adapter's file.

    Raises:
        ValueError: there is a pickle in its place, it cannot be read, or it holds a value that is not finite.
        FileNotFoundError: there is no such file.
    """
    if not path.exists() or path.suffix != Path(WEIGHTS).suffix:
        pickle = path.with_name(PICKLED_WEIGHTS)
        if pickle.exists():
            raise ValueError(f"{pickle} is a pickle, which can run code; only {WEIGHTS} is read.")
        raise FileNotFoundError(f"There is no adapter at {path}.")
    shapes: dict[str, tuple[int, ...]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # a safetensors handle is no mapping
                tensor = file.get_tensor(name)
                shapes[name] = tuple(tensor.shape)
                check_finite(str(path), name, tensor)
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or damaged: {error}") from error
    return shapes


def check_finite(source: str, name: str, tensor: Tensor) -> None:
    """Refuse NaN and infinity; tensors on the meta device have no values."""
    if not tensor.is_meta and not torch.isfinite(tensor).all():
        raise ValueError(f"{source}: {name} holds a value that is not finite (NaN or infinity).")


def without_prefix(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Names as they are in the base model, without what a PeftModel puts in front of them."""
    return {name.removeprefix("base_model.model."): shape for name, shape in shapes.items()}


def saved_beside(model: nn.Module, modules_to_save: Iterable[str] | None) -> list[str]:
    """Names of the modules whose weights PEFT may save with an adapter.

    They are `modules_to_save`, and the embeddings: PEFT saves those when the vocabulary was resized.
    """
    embeddings = []
    for method in ("get_input_embeddings", "get_output_embeddings"):
        with suppress(AttributeError, NotImplementedError):
            embeddings.append(getattr(model, method)())
    names = [name for name, module in model.named_modules() if any(module is found for found in embeddings)]
    return [*(modules_to_save or ()), *names, *EMBEDDING_LAYER_NAMES]


def check_base(saved: Mapping[str, object], found: Mapping[str, object]) -> None:
    """Compare what an adapter was made for with the facts of a model (`base_facts`).

    Raises:
        ValueError: another base model; it names the fact.
    """
    for fact, value in saved.items():
        if found.get(fact) != value:
            raise ValueError(
                f"The adapter was made for another base model: its {fact} is {value!r}, "
                f"this model has {found.get(fact)!r}."
            )


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
        other_modules: names of modules whose weights may be there too (`saved_beside`).

    Raises:
        ValueError: a missing key, a surplus key or another shape; it names the key.
    """
    allowed = tuple(other_modules)
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


def add_loading_note(folder: Path, peft_type: str) -> None:
    """Append how to load the adapter, which is of this PEFT type, to the model card that PEFT writes, once."""
    card = folder / "README.md"
    note = LOADING_NOTE.format(kind=peft_type.lower(), type=peft_type)
    # PEFT writes the card again when an adapter is saved again, and drops the spaces around the note.
    if card.exists() and note.strip() not in (text := card.read_text(encoding="utf-8")):
        temporary = card.with_suffix(".md.tmp")
        temporary.write_text(text + note, encoding="utf-8")
        temporary.rename(card)
