"""What `--model`, `--adapter` and `--strength` stand for: a model that answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from peft import PeftConfig, PeftModel
from peft.utils import CONFIG_NAME
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trimtab import set_strength
from trimtab.cli.recipes import RecipeError, flatten
from trimtab.models import EMBEDDED_MODEL, is_path, load_model
from trimtab.training import RunDirectory, load_run
from trimtab.tuners.saved import load_adapter, require_adapter
from trimtab.tuners.steering.files import WEIGHTS, file_tensors


@dataclass(frozen=True)
class LoadOptions:
    """How the base model is loaded.

    Args:
        dtype: auto (bfloat16 where the device is fast at it), float32, bfloat16 or float16.
        device: auto, cpu, cuda, cuda:N or mps.
        quantization: 4bit or 8bit (bitsandbytes); none if not given.
    """

    dtype: str = "auto"
    device: str = "auto"
    quantization: str | None = None

    def for_differences(self) -> LoadOptions:
        """The same in float32, unless a dtype is given: small differences of hidden states do not survive bfloat16."""
        return replace(self, dtype="float32") if self.dtype == "auto" else self


@dataclass(frozen=True)
class Loaded:
    """A model ready to answer.

    Attributes:
        model: the base, or the base with an adapter.
        tokenizer: its tokenizer.
        name: what to call it.
        recipe: the options it was trained with, if it comes from a run directory; otherwise empty.
    """

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    recipe: dict[str, Any]


def recipe_of(adapter: str | None) -> dict[str, Any]:
    """The options that a run directory was trained with; empty for anything else."""
    run = RunDirectory(Path(adapter)) if adapter is not None else None
    if run is None or not run.recipe_file.is_file():
        return {}
    recipe = run.recipe()
    try:
        return flatten(recipe)
    except RecipeError as error:
        raise ValueError(f"{run.recipe_file}: {error}") from error


def load(model: str | None, adapter: str | None, strength: float | None, options: LoadOptions) -> Loaded:
    """Load a base, put an adapter on it and turn its dial.

    Args:
        model: the base; None: the adapter's own, or the embedded model if there is no adapter.
        adapter: a run directory, a directory of PEFT's or a hub id; None: the base alone.
        strength: of a steering adapter; None: as it was saved.
        options: how the base is loaded.

    Raises:
        ValueError: no such model or adapter, an adapter for another base or without one, a pickle, a file that is cut
            off, or a strength without a steering adapter.
        FileNotFoundError: no such directory, or a run that has not finished.
    """
    settings = asdict(options)
    if adapter is None:
        if strength is not None:
            raise ValueError("A strength needs an adapter whose strength it is: give --adapter too.")
        base, tokenizer = load_model(model or EMBEDDED_MODEL, **settings)
        return Loaded(base, tokenizer, model or EMBEDDED_MODEL, {})

    run = RunDirectory(Path(adapter))
    recipe = recipe_of(adapter)
    if recipe and model is not None and run.setting("method", "family") == "full":
        raise ValueError(f"{adapter} holds a whole model, not an adapter: leave out --model.")
    if recipe and model is None:
        tuned, tokenizer = load_run(run.path, **settings)
    else:
        folder = run.weights if recipe else _adapter_folder(adapter)
        require_adapter(folder)
        file_tensors(folder / WEIGHTS)  # before a base is loaded for nothing
        base, tokenizer = load_model(model or _base_of(folder), **settings)
        tuned = load_adapter(base, folder)
    if strength is not None:
        set_strength(tuned, strength)
    return Loaded(tuned, tokenizer, adapter, recipe)


def _base_of(folder: Path) -> str:
    """The base that an adapter's configuration names.

    Raises:
        ValueError: it names none, as that of a model which was built in memory.
    """
    name = PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
    if not name:
        raise ValueError(f"{folder / CONFIG_NAME} names no base (base_model_name_or_path is {name!r}): give --model.")
    return str(name)


def _adapter_folder(adapter: str) -> Path:
    """A path as it is; of an adapter of the hub, OWNER/NAME, what is fetched.

    Raises:
        FileNotFoundError: the hub gives no adapter of that name.
    """
    if is_path(adapter) or "/" not in adapter or Path(adapter).is_dir():
        return Path(adapter)
    try:
        return Path(snapshot_download(adapter, allow_patterns=["*.json", "*.safetensors"]))
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"There is no adapter at {adapter}: no such directory, and the hub gives none of that name: {error}"
        ) from error
