"""Several (method, task, settings) -> run directories, in one pass over one frozen base."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from accelerate import PartialState
from datasets import Dataset
from peft import PeftModel, PeftType, get_peft_model
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, set_seed

from trimtab.files import new_directory
from trimtab.models import context_length, device_name, model_name, resolve_device
from trimtab.results import Environment, TrainingResult
from trimtab.tasks import Task, get_task
from trimtab.training.arguments import trainer_arguments
from trimtab.training.callbacks import MetricsFile, ProgressBar
from trimtab.training.data import supervised_dataset
from trimtab.training.directory import RunDirectory
from trimtab.training.gradient_start import point_at_gradient
from trimtab.training.grouping import Job, common_settings, require_base
from trimtab.training.learner import Learner
from trimtab.training.outcome import peak_memory, require_finite
from trimtab.training.parallel_trainer import ParallelTrainer
from trimtab.training.preparation import base_and_tokenizer, require_room, run_recipe
from trimtab.training.rate_factors import require_parameters
from trimtab.training.reporting import require_reporter
from trimtab.training.restoring import restored
from trimtab.tuners.steering import SteeringModel, copy_start
from trimtab.tuners.steering.config import FROM_GRADIENT
from trimtab.tuners.steering.files import add_loading_note


def train_together(
    model: str | Path | PreTrainedModel,
    jobs: Sequence[Job],
    task: str | Task,
    group_dir: str | Path,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: bool = True,
    callbacks: Sequence[TrainerCallback] = (),
) -> list[FloatingPointError | None]:
    """Train the methods of all `jobs` on `task` in one pass; each leaves the run directory that `train` would leave.

    The base is in memory once, and every batch goes through it once, with a group of rows for each job: the same
    examples where seeds are equal, else those of the job's own order. Each group is steered by its own adapter and has
    its own loss, gradient clipping, learning rate, schedule and AdamW state, so that its numbers are those of `train`:
    in float32 to rounding, in bfloat16 to the rounding of products of other shapes. A job that diverges leaves the
    batch; the others go on.

    What an interrupted pass needs to go on is in `group_dir`, which is removed at the end. A job that had finished
    then is not touched again. In results, `seconds` is a job's equal share and `peak_memory` that of the whole pass.

    Args:
        model: as in `train`.
        jobs: steering methods, whose settings may differ in the seed.
        task: a name or a Task.
        group_dir: a directory for the pass itself.
        tokenizer: of a model that is passed.
        progress: draw a progress bar.
        callbacks: further callbacks of the transformers Trainer.

    Returns:
        For each job the error that it diverged with, or None: its run has finished.

    A start that fails leaves all directories as they were.

    Raises:
        ValueError: jobs that cannot be trained together, several processes, and what `train` raises it for.
        FileExistsError: a job's directory, or `group_dir`, holds something else.
        OSError: too little room on the disk.
        ModuleNotFoundError: the tracker of `report_to` is not installed.
    """
    settings = common_settings(jobs)
    require_reporter(settings.report_to)
    task = get_task(task) if isinstance(task, str) else task
    device = resolve_device(settings.device) if isinstance(model, str | Path) else model.device
    state = PartialState(cpu=device.type == "cpu")
    if state.num_processes > 1:
        raise ValueError("Runs are trained together in one process: give each GPU a group of its own instead.")
    name = str(model) if isinstance(model, str | Path) else model_name(model)
    recipes = [run_recipe(name, task, job.method, job.settings) for job in jobs]
    runs = [RunDirectory(Path(job.out_dir)) for job in jobs]
    group = RunDirectory(Path(group_dir))
    group.check({"runs": recipes}, overwrite=False)
    checkpoint = group.last_checkpoint()
    for run, recipe in zip(runs, recipes, strict=True):
        if checkpoint is None or not run.finished:
            run.check(recipe, overwrite=False)
    examples = task.load("train", limit=settings.examples, seed=settings.data_seed)
    base, tokenizer = base_and_tokenizer(model, tokenizer, settings)
    require_base(base)
    dataset = supervised_dataset(examples, tokenizer, context_length(base), settings.chat)

    started = time.perf_counter()
    with _attached(base, jobs, None if checkpoint else dataset) as tuned:
        learners = [
            Learner(
                name=_name(index),
                arguments=trainer_arguments(
                    group,
                    job.method,
                    job.settings,
                    settings.micro_batch(1),
                    len(dataset),
                    1,
                    base.device,
                    base.dtype == torch.bfloat16,
                ),
                metrics=None if run.finished else MetricsFile(run.metrics_file),
                rate_factors=job.method.rate_factors,
            )
            for index, (job, run) in enumerate(zip(jobs, runs, strict=True))
        ]
        learners[0].arguments.run_name = f"{len(jobs)} runs together"  # a tracker gets the mean over them
        trained = [learner.parameters(tuned) for learner in learners]
        for parameters, job in zip(trained, jobs, strict=True):
            require_parameters(parameters, job.method)
        sizes = [sum(parameter.numel() for parameter in parameters.values()) for parameters in trained]
        require_room(group, sum(sizes))
        environment = Environment.collect(device_name(base))
        group.open({"runs": recipes}, overwrite=False)
        for run, recipe in zip(runs, recipes, strict=True):
            if not run.finished:
                run.open(recipe, overwrite=False)
                environment.save(run.environment_file)
        bar = ProgressBar(f"{len(jobs)} runs on {task.name}")
        trainer = ParallelTrainer(
            tuned,
            learners,
            dataset,
            tokenizer,
            settings.batch_size,
            [*([bar] if progress else []), *callbacks],
            share_prefix=settings.share_prefix,
            started=started,
        )
        try:
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        except FloatingPointError:
            if len(trainer.diverged) < len(jobs):
                raise
        finally:
            bar.close()
        seconds = trainer.seconds

        errors: list[FloatingPointError | None] = []
        for index, (job, run, learner) in enumerate(zip(jobs, runs, learners, strict=True)):
            errors.append(_divergence(trainer, learner, job, trained[index]))
            if errors[-1] is None and not run.finished:
                _save(tuned, learner.name, run)
                TrainingResult(
                    model=name,
                    task=task.name,
                    method=job.method.label,
                    seed=job.settings.seed,
                    trainable_parameters=sizes[index],
                    steps=trainer.state.global_step,
                    examples=len(dataset),
                    tokens=trainer.tokens[trainer.order_of(learner)],
                    loss=run.metrics()[-1]["loss"],
                    seconds=seconds / len(jobs),
                    peak_memory=peak_memory(base.device),
                    environment=environment,
                    together=len(jobs),
                ).save(run.result_file)
    shutil.rmtree(group.path, ignore_errors=True)
    return errors


@contextmanager
def _attached(base: PreTrainedModel, jobs: Sequence[Job], dataset: Dataset | None) -> Iterator[PeftModel]:
    """`base` with a fresh adapter of each job, all active, within the `with` block, and a plain base after it.

    Each adapter starts as in `train`: from the job's seed, and (where `dataset` is given) from the gradient if it asks
    for that, which it sees alone on the base. Adapters of the same configuration see the same gradient.
    """
    tuned: PeftModel | None = None
    started: dict[str, str] = {}  # the first adapter of each configuration
    with restored(base):
        try:
            for index, job in enumerate(jobs):
                set_seed(job.settings.seed)
                config = job.method.peft_config(base)
                if config is None:
                    raise ValueError(f"The method {job.method.label!r} has no adapter.")
                if tuned is None:
                    tuned = get_peft_model(base, config, adapter_name=_name(index))
                else:
                    tuned.add_adapter(_name(index), config)
                    tuned.set_adapter(_name(index))
                if dataset is not None and getattr(config, "init_weights", None) == FROM_GRADIENT:
                    first = started.setdefault(
                        json.dumps(job.method.adapter, sort_keys=True, default=str), _name(index)
                    )
                    if first == _name(index):
                        point_at_gradient(tuned, dataset, job.settings, job.settings.micro_batch(1), first)
                    else:
                        copy_start(tuned, first, _name(index))
            if tuned is None:
                raise ValueError("There are no runs to train together.")
            cast(SteeringModel, tuned.base_model).set_adapter([_name(index) for index in range(len(jobs))])
            yield tuned
        finally:
            if tuned is not None:
                tuned.unload()


def _name(index: int) -> str:
    """What the adapter of a job is called in the model."""
    return f"run{index}"


def _divergence(
    trainer: ParallelTrainer, learner: Learner, job: Job, parameters: dict[str, torch.nn.Parameter]
) -> FloatingPointError | None:
    """The error that a job diverged with, in a step or in the last update; None: it is finite."""
    if learner.name in trainer.diverged:
        return trainer.diverged[learner.name]
    try:
        require_finite(parameters.items(), job.method)
    except FloatingPointError as error:
        return error
    return None


def _save(tuned: PeftModel, adapter_name: str, run: RunDirectory) -> None:
    """Write one adapter, as PEFT writes the only one of a model."""
    shutil.rmtree(run.weights, ignore_errors=True)  # of a pass that was interrupted between here and its result
    with new_directory(run.weights) as directory:
        tuned.save_pretrained(str(directory), selected_adapters=[adapter_name])
        named = directory / adapter_name
        for path in named.iterdir():
            path.rename(directory / path.name)
        named.rmdir()
        # PEFT has written the card beside the folder, and the configuration completes the one inside of its own.
        add_loading_note(directory, PeftType(tuned.peft_config[adapter_name].peft_type).value)
