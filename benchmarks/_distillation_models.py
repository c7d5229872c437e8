"""The models of benchmarks/distillation.py: base, teacher and students of a task, made and scored."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from _distillation_variants import STUDENT
from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import TrainerCallback

from trimtab import SteeringConfig
from trimtab.distillation import DistillationSettings, answered, distill, twin
from trimtab.encoding import Encoded
from trimtab.evaluation import evaluate
from trimtab.methods import get_method
from trimtab.models import load_model, skeleton
from trimtab.tasks import Task
from trimtab.training import RunDirectory, TrainingSettings, load_run, train
from trimtab.tuners.steering.files import WEIGHTS


class StartAt(TrainerCallback):
    """A training run that begins at a saved adapter."""

    def __init__(self, adapter: Path) -> None:
        self._adapter = adapter

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put the numbers in, unless the run goes on from a checkpoint."""
        if state.global_step == 0:
            set_peft_model_state_dict(kwargs["model"], load_file(self._adapter / WEIGHTS))


class Models:
    """The models of one task, in a folder; what is trained there already is not trained again."""

    def __init__(self, task: Task, folder: Path, options: argparse.Namespace) -> None:
        self._task, self._folder, self._options = task, folder, options

    def base(self) -> tuple[Any, Any]:
        """The base and its tokenizer."""
        return load_model(self._options.model, dtype="float32")

    def teacher(self) -> tuple[Any, Any]:
        """The base with the LoRA, trained if it is not there, and its tokenizer."""
        run = RunDirectory(self._folder / "teacher")
        if not run.finished:
            method = get_method("lora", learning_rate=1e-3, schedule="cosine", warmup_ratio=0.05)
            settings = TrainingSettings(examples=self._options.teacher_examples, batch_size=4)
            train(self._options.model, method, self._task, run.path, settings=settings)
        return load_run(run.path, dtype="float32")

    def _pair(self) -> tuple[Any, Any, Any]:
        """A base, the teacher on a twin of it, the tokenizer."""
        self.teacher()
        base, tokenizer = self.base()
        tuned = PeftModel.from_pretrained(twin(base), str(RunDirectory(self._folder / "teacher").weights)).eval()
        return base, tuned, tokenizer

    def answers(self) -> dict[str, Any]:
        """The teacher's answers to the prompts of training examples, and the seconds they took."""
        tuned, tokenizer = self.teacher()
        examples = self._task.load("train", limit=self._options.prompts)
        started = time.perf_counter()
        texts = answered(tuned, tokenizer, examples, self._options.answer_tokens or self._task.max_new_tokens)
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "texts": [[each.prompt, each.completion] for each in texts]}

    def score(self, model: Any, tokenizer: Any, split: Any) -> dict[str, Any]:
        """Right answers among so many examples of a split."""
        limit = self._options.test if split == "test" else self._options.validation
        accuracy = evaluate(model, tokenizer, self._task, split=split, limit=limit, progress=False).accuracy
        return {"correct": accuracy.correct, "n": accuracy.n}

    def distilled(
        self, fit: dict[str, Any], student: dict[str, Any], texts: list[Encoded], rank: int, out: Path, split: Any
    ) -> dict[str, Any]:
        """Distil, save, score."""
        base, tuned, tokenizer = self._pair()
        changes = self._changes(rank, student)
        config = SteeringConfig(r=rank, **changes) if rank else SteeringConfig(intervention="vector", **changes)
        adapted, result = distill(base, tuned, texts, config, DistillationSettings(**fit))
        adapted.save_pretrained(str(out))
        record = result.to_dict()  # NaN is None there, as in JSON
        return {
            **self.score(adapted, tokenizer, split),
            "parameters": record["parameters"],
            "seconds": record["seconds"],
            "kl_before": record["before"],
            "kl": record["after"],
            "layers": record["layers"],
            "refined": record["refined"],
        }

    def _changes(self, rank: int, student: dict[str, Any]) -> dict[str, Any]:
        """The options of an adapter; a vector (rank 0) has neither bias nor anything that it reads."""
        changes = {**STUDENT, **student}
        if changes.get("layers") == "later":
            count = skeleton(self._options.model).config.get_text_config().num_hidden_layers
            changes["layers"] = list(range(count // 2, count))
        return changes if rank else {name: changes[name] for name in ("layers", "positions") if name in changes}

    def trained(
        self,
        rank: int,
        rate: float,
        examples: int,
        out: Path,
        begin: Path | None,
        student: dict[str, Any],
        split: Any,
    ) -> dict[str, Any]:
        """Train, from a saved adapter if `begin` is given, and score."""
        changes = self._changes(rank, student)
        named = get_method("post-block-normalized", r=rank, **changes) if rank else get_method("1-vec", **changes)
        method = replace(named, learning_rate=rate, schedule="cosine", warmup_ratio=0.05)
        run = RunDirectory(out)
        if not run.finished:
            settings = TrainingSettings(examples=examples, batch_size=4)
            callbacks = [] if begin is None else [StartAt(begin)]
            train(self._options.model, method, self._task, out, settings=settings, callbacks=callbacks)
        scored = self.score(*load_run(out, dtype="float32"), split)
        return {**scored, "rate": rate, "examples": examples, "seconds": run.result().seconds}
