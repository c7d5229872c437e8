"""How one run is executed: trained, unless that is done, then scored."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from trimtab.evaluation import evaluate
from trimtab.files import read_json_lines
from trimtab.models import AnyModel, load_model, resolve_device
from trimtab.results import RunRecord
from trimtab.sweeps.configuration import Configuration
from trimtab.sweeps.directory import SweepDirectory, now
from trimtab.training import RunDirectory, TrainingSettings, train
from trimtab.tuners.saved import load_adapter

CURVE_POINTS = 20
_RESET_PEAK = Path("/proc/self/clear_refs")


class BaseModels:
    """The base that this process has in memory: the last one that was asked for."""

    def __init__(self, device: str = "auto") -> None:
        """Load models onto `device`."""
        self.device = device
        self._key: tuple[str, str, str | None] | None = None
        self._loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None

    def get(self, name: str, settings: TrainingSettings) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """A base as `settings` want it, and its tokenizer."""
        key = (name, settings.dtype, settings.quantization)
        if self._loaded is None or self._key != key:
            self.drop()
            self._loaded, self._key = self.load(name, settings), key
        return self._loaded

    def load(
        self, name: str | Path, settings: TrainingSettings, exact: bool = False
    ) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """A model that is not kept; `exact` as in `load_model`."""
        return load_model(
            name, dtype=settings.dtype, device=self.device, quantization=settings.quantization, exact=exact
        )

    def drop(self) -> None:
        """Give the memory back."""
        self._loaded = self._key = None
        _free_memory()


def run_one(
    run: Configuration, directory: SweepDirectory, bases: BaseModels, callbacks: Sequence[TrainerCallback] = ()
) -> RunRecord:
    """Train what `run` trains unless it is trained, score it, and write its record.

    The caller has claimed the run. A training that was interrupted goes on from its last checkpoint.

    Args:
        run: what is run.
        directory: where its files are.
        bases: the models of this process.
        callbacks: further callbacks of the transformers Trainer.
    """
    training = directory.training(run)
    if not (training.finished and training.weights.is_dir()):
        _train(run, training, bases, callbacks)
    answers = directory.file(run, ".jsonl")
    with _trained_model(run, training, bases) as (model, tokenizer, model_parameters):
        scored = evaluate(
            model,
            tokenizer,
            run.task,
            split=run.split,
            limit=run.examples,
            data_seed=run.training.data_seed,
            chat=run.training.chat,
            batch_tokens=run.batch_tokens,
            out=answers,
            name=run.model,
            progress=False,
        )
    trained = training.result()
    record = RunRecord(
        run=run.hash,
        training=run.training_hash,
        model=run.model,
        task=run.task_name,
        method=run.label,
        family=run.method.family,
        learning_rate=run.learning_rate,
        seed=run.seed,
        split=run.split,
        accuracy=scored.accuracy.value,
        standard_error=scored.accuracy.standard_error,
        correct=scored.accuracy.correct,
        n=scored.accuracy.n,
        unparsed=scored.unparsed,
        trainable_parameters=trained.trainable_parameters,
        model_parameters=model_parameters,
        steps=trained.steps,
        examples=trained.examples,
        tokens=trained.tokens,
        loss=trained.loss,
        loss_curve=loss_curve(training),
        training_seconds=trained.seconds,
        evaluation_seconds=scored.seconds,
        generated_tokens=scored.generated_tokens,
        peak_memory=trained.peak_memory,
        dtype=scored.settings["dtype"],
        examples_file=answers.relative_to(directory.path).as_posix(),
        finished=now(),
        configuration=run.to_dict(),
        environment=scored.environment,
        together=trained.together,
        split_note=scored.split_note,
        right=right_answers(answers),
    )
    record.save(directory.file(run, ".json"))
    return record


def right_answers(path: Path) -> str:
    """A character for each of the answers in a file: 1 right, 0 not."""
    return "".join(str(int(answer["correct"])) for answer in read_json_lines(path))


def clear_leftovers(training: RunDirectory) -> None:
    """Before a training starts or goes on: remove weights of a process that was killed while it saved."""
    for leftover in training.path.glob(".weights.*"):
        shutil.rmtree(leftover, ignore_errors=True)


def loss_curve(training: RunDirectory) -> list[list[float]]:
    """[last step, mean loss] of at most `CURVE_POINTS` equal stretches of the logged steps."""
    lines = training.metrics()
    bounds = [round(i * len(lines) / CURVE_POINTS) for i in range(CURVE_POINTS + 1)]
    stretches = [lines[a:b] for a, b in pairwise(bounds) if a < b]
    return [[each[-1]["step"], sum(line["loss"] for line in each) / len(each)] for each in stretches]


def _train(run: Configuration, training: RunDirectory, bases: BaseModels, callbacks: Sequence[TrainerCallback]) -> None:
    """Train what `run` trains, from the last checkpoint if there is one."""
    full = run.method.family == "full"
    if full:
        bases.drop()  # its weights are changed: neither two copies in memory, nor a changed one for the next run
    reset_peak_memory(bases.device)
    model, tokenizer = (bases.load if full else bases.get)(run.model, run.training)
    clear_leftovers(training)

    def start() -> None:
        train(
            model,
            run.method,
            run.task,
            training.path,
            tokenizer=tokenizer,
            settings=run.training,
            progress=False,
            callbacks=callbacks,
        )

    try:
        start()
    except FileExistsError:
        # The directory is this training's own: it holds weights that were deleted since, or the first file of a
        # process that was killed at its start, or another version's recipe.
        shutil.rmtree(training.path)
        start()


@contextmanager
def _trained_model(
    run: Configuration, training: RunDirectory, bases: BaseModels
) -> Iterator[tuple[AnyModel, PreTrainedTokenizerBase, int]]:
    """The model as the run directory has it, its tokenizer, and the number of the base's parameters.

    Always from the files, never what training left in memory: a run that was interrupted between training and scoring
    ends with the same numbers.
    """
    if run.method.family == "full":
        bases.drop()
        model, tokenizer = bases.load(training.weights, run.training, exact=True)
        yield model, tokenizer, model.num_parameters()
        return
    base, tokenizer = bases.get(run.model, run.training)
    parameters = base.num_parameters()
    tuned = load_adapter(base, training.weights)
    try:
        yield tuned, tokenizer, parameters
    finally:
        tuned.unload()


def _free_memory() -> None:
    """Give back what nothing uses; a trainer is part of a cycle."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def reset_peak_memory(device: str) -> None:
    """Begin to measure anew, of models on `device`: a process that runs many would report the largest of them all.

    What the last training held on a GPU and nothing uses is given back: other workers may share it.
    """
    resolved = resolve_device(device)
    if resolved.type == "cuda":
        _free_memory()
        torch.cuda.reset_peak_memory_stats(resolved)
    else:
        with suppress(OSError):  # only Linux has the file, and not every container may write it
            _RESET_PEAK.write_text("5", encoding="ascii")  # 5: the peak of the resident set
