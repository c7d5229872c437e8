"""(model, method, task) -> a run directory."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import PartialState
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, set_seed

from trimtab.files import new_directory
from trimtab.methods import Method, attach, get_method
from trimtab.models import context_length, device_name, model_name, resolve_device
from trimtab.results import Environment, TrainingResult
from trimtab.tasks import Task, get_task
from trimtab.training.arguments import trainer_arguments
from trimtab.training.batches import used_examples
from trimtab.training.callbacks import MetricsWriter, ProgressBar
from trimtab.training.data import supervised_dataset
from trimtab.training.directory import RunDirectory
from trimtab.training.gates import write_gates
from trimtab.training.gradient_start import point_at_gradient
from trimtab.training.outcome import peak_memory, require_finite
from trimtab.training.preparation import base_and_tokenizer, require_room, run_recipe
from trimtab.training.rate_factors import require_parameters
from trimtab.training.reporting import require_reporter
from trimtab.training.restoring import restored
from trimtab.training.selection import heads_to_select, selected_heads, selection_method, with_heads
from trimtab.training.settings import TrainingSettings
from trimtab.training.trainer import CompletionTrainer
from trimtab.tuners.saved import save_base


def train(
    model: str | Path | PreTrainedModel,
    method: str | Method,
    task: str | Task,
    out_dir: str | Path,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    settings: TrainingSettings | None = None,
    overwrite: bool = False,
    progress: bool = True,
    callbacks: Sequence[TrainerCallback] = (),
    selection: Method | None = None,
) -> RunDirectory:
    """Train `method` on `task` and leave everything about it in `out_dir`.

    The loss is the mean of -log p over the completions' tokens. When `out_dir` holds the same run,
    unfinished, it goes on from its last checkpoint and ends with the same numbers as if it had not been
    interrupted. Several processes (torchrun) share each batch; of an epoch's last, smaller batch they leave out
    what does not split into full micro-batches for all of them: no example counts twice.

    Args:
        model: a name or path (see `load_model`), or a model; one that is passed is a plain base again
            afterwards, set up as before; "sft" leaves its weights changed, in float32.
        method: a name (see `METHODS`) or a Method.
        task: a name or a Task.
        out_dir: the run directory.
        tokenizer: of a model that is passed.
        settings: batches, length, seeds.
        overwrite: delete the run that `out_dir` holds.
        progress: draw a progress bar.
        callbacks: further callbacks of the transformers Trainer.
        selection: how a method with `select_heads` (LoFiT) finds its heads, trained first, in a directory of the run;
            None: `selection_method(method)`.

    A start that fails leaves `out_dir` as it was.

    Raises:
        ValueError: an unknown name, a bad setting, a float16 model, an example that does not fit into the model's
            context, or fewer examples than the processes need for one micro-batch each.
        FileExistsError: `out_dir` holds something else.
        OSError: too little room on the disk.
        ModuleNotFoundError: the tracker of `settings.report_to` is not installed.
        FloatingPointError: the loss, or a trained weight, is not finite.
    """
    settings = settings or TrainingSettings()
    require_reporter(settings.report_to)
    method = get_method(method) if isinstance(method, str) else method
    task = get_task(task) if isinstance(task, str) else task
    if selection is not None and selection_method(method) is None:
        raise ValueError(f"The method {method.label!r} selects no heads: leave selection out, or set select_heads.")
    selection = selection or selection_method(method)
    device = resolve_device(settings.device) if isinstance(model, str | Path) else model.device
    state = PartialState(cpu=device.type == "cpu")  # picks the GPU of this process, if there are several
    micro_batch = settings.micro_batch(state.num_processes)
    name = str(model) if isinstance(model, str | Path) else model_name(model)
    recipe = run_recipe(name, task, method, settings)
    if selection is not None:
        recipe["selection"] = selection.to_dict()
    run = RunDirectory(Path(out_dir))
    run.check(recipe, overwrite)
    examples = task.load("train", limit=settings.examples, seed=settings.data_seed)
    base, tokenizer = base_and_tokenizer(model, tokenizer, settings)
    dataset = supervised_dataset(examples, tokenizer, context_length(base), settings.chat)
    used = used_examples(len(dataset), micro_batch, state.num_processes)
    half = base.dtype == torch.bfloat16
    complete, selection_seconds = method, 0.0
    if selection is not None:
        count = heads_to_select(base, method)
        _claim(run, recipe, overwrite, state)
        overwrite = False  # what is there from now on is this run's
        if not run.selection.finished:
            train(
                base,
                selection,
                task,
                run.selection.path,
                tokenizer=tokenizer,
                settings=settings,
                progress=progress,
                callbacks=callbacks,
            )
        complete = with_heads(method, selected_heads(base, run, count))
        selection_seconds = run.selection.result().seconds
    with _attached(base, complete, settings.seed) as tuned:
        trained = {name: value for name, value in tuned.named_parameters() if value.requires_grad}
        require_parameters(trained, method)
        trainable = sum(value.numel() for value in trained.values())
        require_room(run, trainable)
        environment = Environment.collect(device_name(base))
        _claim(run, recipe, overwrite, state)
        if state.is_main_process:
            environment.save(run.environment_file)

        started = time.perf_counter()
        checkpoint = run.last_checkpoint()
        if checkpoint is None:
            point_at_gradient(tuned, dataset, settings, micro_batch)
        bar = ProgressBar(f"{method.label} on {task.name}")
        trainer = CompletionTrainer(
            tuned,
            trainer_arguments(run, method, settings, micro_batch, used, state.num_processes, base.device, half),
            dataset,
            tokenizer,
            settings.batch_size,
            [MetricsWriter(run.metrics_file), *([bar] if progress else []), *callbacks],
            share_prefix=settings.share_prefix,
            rate_factors=method.rate_factors,
            started=started,
        )
        try:
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        except torch.linalg.LinAlgError:
            require_finite(tuned.named_parameters(), method)  # a factorisation of what has diverged
            raise
        finally:
            bar.close()
        seconds = trainer.seconds
        require_finite(tuned.named_parameters(), method)
        if state.is_main_process:
            _save(tuned, tokenizer, method, run)
            write_gates(tuned, run)
            TrainingResult(
                model=name,
                task=task.name,
                method=method.label,
                seed=settings.seed,
                trainable_parameters=trainable,
                steps=trainer.state.global_step,
                examples=len(dataset),
                tokens=int(trainer.state.num_input_tokens_seen),
                loss=run.metrics()[-1]["loss"],
                seconds=selection_seconds + seconds,
                peak_memory=peak_memory(base.device),
                environment=environment,
                together=1,
            ).save(run.result_file)
            shutil.rmtree(run.checkpoints, ignore_errors=True)
        state.wait_for_everyone()
    return run


def _claim(run: RunDirectory, recipe: dict[str, Any], overwrite: bool, state: PartialState) -> None:
    """Open the run directory, once every process knows that it can start."""
    state.wait_for_everyone()
    if state.is_main_process:
        run.open(recipe, overwrite)
    state.wait_for_everyone()


@contextmanager
def _attached(base: PreTrainedModel, method: Method, seed: int) -> Iterator[PreTrainedModel | PeftModel]:
    """`base` ready to be trained by `method` within the `with` block, and a plain base after it."""
    with restored(base):
        set_seed(seed)  # the adapter's start
        tuned = attach(base, method)
        try:
            yield tuned
        finally:
            if isinstance(tuned, PeftModel):
                tuned.unload()


def _save(tuned: nn.Module, tokenizer: PreTrainedTokenizerBase, method: Method, run: RunDirectory) -> None:
    """Write the adapter, or after full fine-tuning the model and its tokenizer."""
    shutil.rmtree(run.weights, ignore_errors=True)  # of a run that was interrupted between here and its result
    with new_directory(run.weights) as directory:
        tuned.save_pretrained(directory)  # type: ignore[operator]
        if method.family == "full":
            tokenizer.save_pretrained(directory)
        elif method.family == "lora":
            save_base(directory, cast(PreTrainedModel, tuned))
