"""What a training run needs before it starts: its recipe, a base, and room on the disk."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, cast

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trimtab.files import require_free_disk
from trimtab.methods import Method
from trimtab.models import load_model
from trimtab.tasks import Task
from trimtab.training.data_files import data_digests
from trimtab.training.directory import RunDirectory
from trimtab.training.recipe_differences import DATA_FILES
from trimtab.training.settings import TrainingSettings, require_trainable_dtype


def run_recipe(model: str, task: Task, method: Method, settings: TrainingSettings) -> dict[str, Any]:
    """Every setting of a run and the content of its data, by which its directory is recognised.

    Raises:
        FileNotFoundError: as `data_digests`.
    """
    options = {each.name: getattr(task, each.name) for each in fields(cast(Any, task))}
    return {
        "model": model,
        "task": {"name": task.name, **options},
        "method": method.to_dict(),
        "training": asdict(settings),
        **({DATA_FILES: digests} if (digests := data_digests(task)) else {}),
    }


def base_and_tokenizer(
    model: str | Path | PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, settings: TrainingSettings
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The base model and its tokenizer.

    Raises:
        ValueError: the model carries an adapter, is in float16, or was passed without a tokenizer.
    """
    if isinstance(model, str | Path):
        base, own = load_model(model, dtype=settings.dtype, device=settings.device, quantization=settings.quantization)
        return base, tokenizer or own
    if isinstance(model, PeftModel):
        raise ValueError("The model already carries an adapter: pass the base, model.unload().")
    require_trainable_dtype(str(model.dtype).removeprefix("torch."))
    if tokenizer is None:
        raise ValueError("A model that is passed as an object needs its tokenizer: train(..., tokenizer=...).")
    return model, tokenizer


def require_room(run: RunDirectory, trainable: int) -> None:
    """Room for two checkpoints (weights and AdamW's two moments, float32) and the weights themselves.

    Raises:
        OSError: there is less.
    """
    require_free_disk(run.path, 4 * trainable * (2 * 3 + 1) + 50_000_000, "This run")
