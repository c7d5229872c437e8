"""A run directory: what a training run leaves behind, and how an interrupted one is recognised."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trimtab.files import write_text
from trimtab.models import load_model
from trimtab.results import TrainingResult
from trimtab.training.recipe_differences import computed, differences, plain
from trimtab.tuners.saved import load_adapter


@dataclass(frozen=True)
class RunDirectory:
    """The files of one training run.

    | file | what |
    | --- | --- |
    | `recipe.yaml` | every setting: model, task, method, training; digests of the user's data files |
    | `environment.json` | versions, machine, git hash, command |
    | `metrics.jsonl` | one line a logged step: loss, learning rate, gradient norm, tokens |
    | `weights/` | the adapter (or, after full fine-tuning, the model) as safetensors; LoRA's base in `base.json` |
    | `selection/` | where the method selects heads first (LoFiT): the run directory of that stage |
    | `heads.json` | likewise: the selected heads, with the norms that they were selected by |
    | `gates.json` | after a method with gates (JoLA): the gates of each head |
    | `result.json` | how it ended; its presence says that the run has finished |
    | `checkpoints/` | while the run goes on: the Trainer's own files, to resume from |
    """

    path: Path

    @property
    def recipe_file(self) -> Path:
        """Every setting of the run, YAML."""
        return self.path / "recipe.yaml"

    @property
    def environment_file(self) -> Path:
        """What the run was computed with, JSON."""
        return self.path / "environment.json"

    @property
    def metrics_file(self) -> Path:
        """One JSON object a logged step."""
        return self.path / "metrics.jsonl"

    @property
    def weights(self) -> Path:
        """The trained adapter, or after full fine-tuning the model; a directory for from_pretrained."""
        return self.path / "weights"

    @property
    def selection(self) -> RunDirectory:
        """The run of the stage that selects heads, where the method has one."""
        return RunDirectory(self.path / "selection")

    @property
    def heads_file(self) -> Path:
        """The heads that were selected, JSON: layer, head and norm, the largest norm first."""
        return self.path / "heads.json"

    @property
    def gates_file(self) -> Path:
        """The gates of each head after training, JSON."""
        return self.path / "gates.json"

    @property
    def result_file(self) -> Path:
        """The TrainingResult; written last."""
        return self.path / "result.json"

    @property
    def checkpoints(self) -> Path:
        """The Trainer's checkpoints of an unfinished run."""
        return self.path / "checkpoints"

    @property
    def finished(self) -> bool:
        """Whether the run reached its end; an empty result, as a power cut may leave, is none."""
        return self.result_file.is_file() and self.result_file.stat().st_size > 0

    @property
    def _occupied(self) -> bool:
        """Whether anything is in the directory."""
        return self.path.is_dir() and any(self.path.iterdir())

    def recipe(self) -> dict[str, Any]:
        """The settings of the run.

        Raises:
            FileNotFoundError: this is not a run directory.
            ValueError: the recipe is damaged.
        """
        if not self.recipe_file.is_file():
            raise FileNotFoundError(f"{self.path} is not a run directory: it has no {self.recipe_file.name}.")
        try:
            loaded = yaml.safe_load(self.recipe_file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{self.recipe_file} is cut off or damaged: {' '.join(str(error).split())}") from error
        if not isinstance(loaded, dict):
            raise ValueError(f"{self.recipe_file} is cut off or damaged: it holds no settings.")
        return loaded

    def setting(self, *keys: str) -> Any:
        """One setting of the recipe, by the keys that lead to it: setting("method", "family").

        Raises:
            ValueError: the recipe lacks it.
            FileNotFoundError: as `recipe`.
        """
        found: Any = self.recipe()
        for key in keys:
            if not isinstance(found, dict) or key not in found:
                raise ValueError(f"{self.recipe_file} is cut off or damaged: it lacks {'.'.join(keys)}.")
            found = found[key]
        return found

    def metrics(self) -> list[dict[str, float]]:
        """The logged steps, in order."""
        return [json.loads(line) for line in self.metrics_file.read_text(encoding="utf-8").splitlines()]

    def result(self) -> TrainingResult:
        """How the run ended."""
        return TrainingResult.load(self.result_file)

    def check(self, recipe: dict[str, Any], overwrite: bool) -> None:
        """Whether the run of `recipe` may be written here; nothing is touched.

        Raises:
            FileExistsError: the directory holds a finished run (unless `overwrite`), another run (unless
                `overwrite`), or files that are no run at all (always).
        """
        if self.path.exists() and not self.path.is_dir():
            raise FileExistsError(f"{self.path} is a file, not a directory.")
        if not self._occupied:
            return
        if not self.recipe_file.is_file():
            raise FileExistsError(f"{self.path} holds files of something else; choose an empty output directory.")
        if overwrite:
            return
        if found := differences(computed(self.recipe()), computed(plain(recipe))):
            raise FileExistsError(
                f"{self.path} holds another run, which differs in {found}. Choose another output "
                "directory, or overwrite it."
            )
        if self.finished:
            raise FileExistsError(f"{self.path} holds this run, finished. Overwrite it to run it again.")

    def open(self, recipe: dict[str, Any], overwrite: bool) -> None:
        """Claim this directory for the run of `recipe`, or go on with an unfinished one of the same recipe.

        Raises:
            FileExistsError: as `check`.
        """
        self.check(recipe, overwrite)
        if self._occupied and overwrite:
            shutil.rmtree(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.recipe_file, yaml.safe_dump(plain(recipe), sort_keys=False, allow_unicode=True))

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint that was written to its end, or None."""
        found = [path for path in self.checkpoints.glob("checkpoint-*") if _is_complete(path)]
        return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def load_run(
    path: Path, *, dtype: str = "auto", device: str = "auto", quantization: str | None = None
) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
    """The trained model of a finished run and its tokenizer: the base with the adapter on it.

    Args:
        path: a run directory.
        dtype: of the base, as in `load_model`.
        device: as in `load_model`.
        quantization: as in `load_model`.

    Raises:
        FileNotFoundError: no run directory, or one whose run has not finished.
        ValueError: the weights are a pickle, damaged or not finite, lack a tensor or have one too many, or the base is
            not the one that the adapter was trained on.
    """
    run = RunDirectory(Path(path))
    family = run.setting("method", "family")
    if not run.finished:
        raise FileNotFoundError(f"The run in {path} has not finished. Start it again with the same recipe to resume.")
    options: dict[str, Any] = {"dtype": dtype, "device": device, "quantization": quantization}
    if family == "full":
        return load_model(run.weights, exact=True, **options)
    model, tokenizer = load_model(run.setting("model"), **options)
    return load_adapter(model, run.weights), tokenizer


def _is_complete(checkpoint: Path) -> bool:
    """Whether the Trainer got to the file that it writes last."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True
