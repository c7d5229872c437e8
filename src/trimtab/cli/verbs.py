"""The verbs of the command line; the signature is what a user types, the docstring what --help says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from trimtab import evaluation, training
from trimtab.chat import ChatSettings, Form, Session
from trimtab.cli.advise import advise
from trimtab.cli.analyze import analyze
from trimtab.cli.distill import distill
from trimtab.cli.evaluation_directory import RECORDS, RESULT, default_directory, require_writable
from trimtab.cli.export import export
from trimtab.cli.loading import LoadOptions, load, recipe_of
from trimtab.cli.method_options import MethodOptions
from trimtab.cli.method_table import method_table
from trimtab.cli.parser import usage_errors
from trimtab.cli.report import report
from trimtab.cli.sweep import sweep
from trimtab.demo import DemoSettings, run_demo
from trimtab.models import EMBEDDED_MODEL
from trimtab.registry import check_choice
from trimtab.tasks import SPLITS, get_task, task_names
from trimtab.training import TrainingSettings

OWN_TASK_TOKENS = 256
"""How long chat answers get with an adapter whose task is a Python file, which is not run to ask it."""


def train(
    *,
    task: str,
    model: str = EMBEDDED_MODEL,
    method: str = "post-block",
    changes: MethodOptions,
    settings: TrainingSettings,
    task_options: dict[str, Any] | None = None,
    out: str | None = None,
    overwrite: bool = False,
) -> None:
    """Train a method on a task and leave adapter, recipe and metrics in a run directory.

    Started again with the same options, an interrupted run goes on where it stopped.

    Args:
        task: a task's name, or a file: .jsonl with prompt and completion, or messages, on each line, .yaml or .py.
        model: a model of the Hugging Face hub, a directory, or smollm2-135m.
        method: the named method to begin with; `trimtab methods` lists them.
        changes: what is different from the named method.
        settings: how long, on what and in what batches.
        task_options: the task's own, as in --task_options.data_dir data/boolq.
        out: the run directory; runs/TASK/METHOD if not given.
        overwrite: delete the run that is there.
    """
    with usage_errors():
        chosen = changes.change(method)
        chosen_task = get_task(task, **(task_options or {}))
    directory = Path(out) if out else Path("runs", Path(task).stem, method)
    run = training.train(model, chosen, chosen_task, directory, settings=settings, overwrite=overwrite)
    result = run.result()
    Console().print(
        f"{result.method}: {result.trainable_parameters:,} parameters, {result.steps:,} steps, "
        f"loss {result.loss:.3f}, {result.seconds:,.0f} s\nweights in {run.weights}\n"
        f"next: trimtab eval --adapter {run.path}    trimtab chat --adapter {run.path}",
        highlight=False,
        soft_wrap=True,
    )


def evaluate(
    *,
    task: str | None = None,
    model: str | None = None,
    adapter: str | None = None,
    strength: float | None = None,
    split: str = "test",
    examples: int | None = None,
    data_seed: int = 0,
    chat: bool | None = None,
    batch_tokens: int = 8192,
    task_options: dict[str, Any] | None = None,
    options: LoadOptions,
    out: str | None = None,
    overwrite: bool = False,
) -> None:
    """Let a model answer a task; print its accuracy and write every answer to a file.

    Args:
        task: a task's name or a .jsonl, .yaml or .py file; the one it was trained on if not given.
        model: the base: a model of the hub, a directory, or smollm2-135m; the adapter's own if not given.
        adapter: a run directory, or an adapter that PEFT can load; without it the base answers.
        strength: of a steering adapter, 0 being the base; as it was saved if not given.
        split: train, validation or test.
        examples: how many; all if not given.
        data_seed: which ones.
        chat: put the prompts into the model's chat template; as in training if not given.
        batch_tokens: tokens in a batch: less needs less memory.
        task_options: the task's own, as in --task_options.data_dir data/boolq.
        options: how the base is loaded.
        out: the directory for records.jsonl and result.json; if not given, evaluation/TASK-SPLIT in the run
            directory (with the strength, where one was given), or in runs/PATH for a model or an adapter at PATH
            that comes from none.
        overwrite: replace the evaluation that is there; a training run never is.
    """
    with usage_errors():
        check_choice("split", split, SPLITS)
        recipe = recipe_of(adapter)
        if task is None and not recipe:
            raise ValueError("Which task? Give --task; only a run directory knows its own.")
        own = {} if task is not None else recipe["task_options"]
        chosen = get_task(task or recipe["task"], **{**own, **(task_options or {})})
    name = adapter or model or EMBEDDED_MODEL
    directory = Path(out) if out else default_directory(name, bool(recipe), chosen.name, split, strength)
    require_writable(directory, overwrite)
    loaded = load(model, adapter, strength, options)
    result = evaluation.evaluate(
        loaded.model,
        loaded.tokenizer,
        chosen,
        split=split,  # type: ignore[arg-type]  # checked above
        limit=examples,
        data_seed=data_seed,
        chat=bool(loaded.recipe.get("chat")) if chat is None else chat,
        batch_tokens=batch_tokens,
        out=directory / RECORDS,
        name=loaded.name,
    )
    result.save(directory / RESULT)
    Console().print(
        f"{result}\nsplits: {result.split_note}\n"
        f"{result.unparsed:,} answers could not be read; all are in {directory / RECORDS}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def chat(
    *,
    model: str | None = None,
    adapter: str | None = None,
    strength: float | None = None,
    compare: bool = False,
    settings: ChatSettings,
    options: LoadOptions,
) -> None:
    """Talk to a model in the terminal; /help lists what can be changed while talking.

    Args:
        model: the base: a model of the hub, a directory, or smollm2-135m; the adapter's own if not given.
        adapter: a run directory, or an adapter that PEFT can load.
        strength: of a steering adapter, 0 being the base; as it was saved if not given.
        compare: let the base answer too, side by side.
        settings: how messages are written for the model and how it answers.
        options: how the base is loaded.
    """
    loaded = load(model, adapter, strength, options)
    if loaded.recipe:  # an adapter answers best in the form, and at the length, that it was trained for
        own: Form = "chat" if loaded.recipe["chat"] else "plain"
        name = loaded.recipe["task"]  # a task of the user's own Python file is not run from here
        known = name in task_names() or name.endswith((".jsonl", ".jsonl.gz"))
        longest = get_task(name, **loaded.recipe["task_options"]).max_new_tokens if known else OWN_TASK_TOKENS
        chosen = settings.for_model(loaded.tokenizer, own, longest)
    else:
        chosen = settings.for_model(loaded.tokenizer)
    Session(loaded.model, loaded.tokenizer, chosen, compare=compare).run()


def methods(*, model: str | None = None) -> None:
    """List the methods: what each one trains, and how many parameters that is.

    Args:
        model: count the parameters on this model, of which only the configuration is read.
    """
    Console().print(method_table(model))


def demo(*, out: str = "runs/demo", settings: DemoSettings, overwrite: bool = False) -> None:
    """Train three methods on one task, compare them with the base, and write a page about it.

    What is finished in the output directory is not done again.

    Args:
        out: the directory for the adapters, the records and index.html.
        settings: the models, the task and the sizes.
        overwrite: delete what is there and begin anew.
    """
    run_demo(settings, Path(out), overwrite=overwrite)


VERBS: dict[str, Callable[..., None]] = {
    "train": train,
    "eval": evaluate,
    "chat": chat,
    "methods": methods,
    "demo": demo,
    "sweep": sweep,
    "report": report,
    "analyze": analyze,
    "advise": advise,
    "distill": distill,
    "export": export,
}
