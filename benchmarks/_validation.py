"""What a trained adapter is worth on examples that it has not seen, and runs that are not repeated."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from trimtab.evaluation import evaluate
from trimtab.files import write_text
from trimtab.methods import Method
from trimtab.models import EMBEDDED_MODEL, AnyModel, context_length
from trimtab.tasks import Task
from trimtab.training import RunDirectory, TrainingSettings, train
from trimtab.training.batch_losses import mean_loss
from trimtab.training.data import supervised_dataset

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Validation:
    """Validation examples: the loss on `losses` of them, the accuracy on the first `answers`."""

    task: Task
    tokenizer: PreTrainedTokenizerBase
    losses: int
    answers: int

    def score(self, model: AnyModel) -> dict[str, Any]:
        """Nats an answer token, and the accuracy with its error where one is asked for."""
        examples = self.task.load("validation", limit=self.losses)
        dataset: Dataset = supervised_dataset(examples, self.tokenizer, context_length(model))
        score: dict[str, Any] = {"loss": mean_loss(model, dataset, 16, share_prefix=True), "examples": len(dataset)}
        if self.answers:
            result = evaluate(
                model, self.tokenizer, self.task, split="validation", limit=self.answers, progress=False
            ).accuracy
            score |= {"accuracy": result.value, "standard_error": result.standard_error, "answers": result.n}
        return score

    def score_of_run(
        self, base: Any, method: Method, directory: Path, settings: TrainingSettings, callbacks: tuple[Any, ...] = ()
    ) -> dict[str, Any]:
        """Train and score, unless `directory` holds the run or its score already; an interrupted run goes on.

        Raises:
            ValueError: it holds a finished run with other settings.
        """
        run = RunDirectory(directory)
        if not run.finished:
            train(
                base,
                method,
                self.task,
                directory,
                tokenizer=self.tokenizer,
                settings=settings,
                progress=False,
                callbacks=callbacks,
            )
        wanted = json.loads(json.dumps([method.to_dict(), asdict(settings)]))
        recipe = run.recipe()
        # A setting that is newer than the run has its default there.
        if wanted != [recipe["method"], asdict(TrainingSettings()) | recipe["training"]]:
            raise ValueError(f"{directory} holds a run with other settings: choose other --runs, or delete it.")
        file = directory / f"score-{self.losses}-{self.answers}.json"
        if not file.exists():
            tuned = PeftModel.from_pretrained(base, str(run.weights)).eval()
            try:
                score = self.score(tuned)
            finally:
                tuned.unload()
            result = run.result()
            score |= {"parameters": result.trainable_parameters, "steps": result.steps, "seconds": result.seconds}
            write_text(file, json.dumps(score) + "\n")
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found


def parser_of(description: str | None, runs: str) -> argparse.ArgumentParser:
    """The options that both benchmarks of trained adapters have; runs are kept under runs/`runs`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=EMBEDDED_MODEL)
    parser.add_argument("--task", default="listops-small", help="a name, or a file as for trimtab train")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--validation", type=int, default=400, help="examples for the loss")
    parser.add_argument("--answers", type=int, default=200, help="examples for the accuracy; 0: no accuracy")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--runs", type=Path, default=HERE.parent / "runs" / runs)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--docs", type=Path, default=HERE.parent / "docs")
    return parser


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """The options that a result depends on."""
    return {name: value for name, value in vars(options).items() if not isinstance(value, Path)}
