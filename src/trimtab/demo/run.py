"""The demo from beginning to end: base, then each method, then the table and the page."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

from peft import PeftModel
from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trimtab.demo.outcomes import Layout, Outcome
from trimtab.demo.page import require_report_packages, write_page
from trimtab.demo.settings import BASE, DemoSettings
from trimtab.demo.table import markdown_table, terminal_table
from trimtab.evaluation import evaluate
from trimtab.files import write_text
from trimtab.logs import configure_logging
from trimtab.models import load_model
from trimtab.tasks import get_task
from trimtab.training import load_run, train


def run_demo(
    settings: DemoSettings, out: Path, *, overwrite: bool = False, console: Console | None = None
) -> list[Outcome]:
    """Evaluate the base, train and evaluate each method, print the table and write the page.

    Each method has a process of its own, so that its peak memory is its own too. What `out` already holds of
    the same settings is not done again; a training that was interrupted goes on.

    Args:
        settings: what is trained on what.
        out: the output directory: adapters, answers, table.md, figures and index.html.
        overwrite: delete what `out` holds and begin anew.
        console: where to write; None: the terminal.

    Raises:
        FileExistsError: `out` holds something else, or a demo of other settings.
        ModuleNotFoundError: the packages that draw the page are not installed.
        MemoryError: a process was killed, as happens when memory runs out.
    """
    require_report_packages()
    console = console or Console(highlight=False)
    layout = Layout(out)
    _claim(layout, settings, overwrite)
    started = time.perf_counter()
    names = [BASE, *settings.methods]
    for index, name in enumerate(names, start=1):
        title = f"[{index}/{len(names)}] {name}"
        if layout.evaluation(name).exists():
            console.print(f"{title}: finished before", markup=False)
            continue
        console.print(title, markup=False)
        _in_fresh_process(_base if name == BASE else _method, settings, layout, name)
        console.print(f"    accuracy {Outcome.read(layout, name).evaluation.accuracy}", markup=False)

    outcomes = [Outcome.read(layout, name) for name in names]
    write_text(layout.table, markdown_table(outcomes))
    write_page(outcomes, settings, layout)
    console.print(terminal_table(outcomes))
    minutes = (time.perf_counter() - started) / 60
    console.print(f"{minutes:.1f} minutes. Open {layout.page}", markup=False, soft_wrap=True)
    return outcomes


def _claim(layout: Layout, settings: DemoSettings, overwrite: bool) -> None:
    """Take `layout.root` for a demo with these settings."""
    root = layout.root
    if root.exists() and not root.is_dir():
        raise FileExistsError(f"{root} is a file, not a directory.")
    if root.is_dir() and any(root.iterdir()):
        if not layout.settings.is_file():
            raise FileExistsError(f"{root} holds files of something else; choose an empty output directory.")
        written = json.loads(layout.settings.read_text(encoding="utf-8"))
        if overwrite:
            shutil.rmtree(root)
        elif different := settings.differences(written):
            raise FileExistsError(
                f"{root} holds a demo with other settings ({', '.join(different)}). Choose another output "
                "directory, or overwrite it."
            )
    root.mkdir(parents=True, exist_ok=True)
    write_text(layout.settings, json.dumps(settings.to_dict(), indent=2, ensure_ascii=False) + "\n")


def _in_fresh_process(
    work: Callable[[DemoSettings, Layout, str], None], settings: DemoSettings, layout: Layout, name: str
) -> None:
    """Run `work` in a process that is started for it, and raise here what it raises there.

    The operating system reports the peak memory of a process, and a child's begins at what its parent had in
    use: so this process, the parent, never loads a model.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=configure_logging) as pool:
        try:
            pool.submit(work, settings, layout, name).result()
        except BrokenProcessPool as error:
            raise MemoryError(
                "The process was killed, most likely because memory ran out. Start the demo again to go on; "
                "a smaller --batch_size needs less."
            ) from error


def _base(settings: DemoSettings, layout: Layout, name: str) -> None:
    """Ask the base model."""
    model, tokenizer = load_model(settings.model, dtype=settings.dtype, device=settings.device)
    facts = {"name": settings.model, "parameters": model.num_parameters(), "dtype": str(model.dtype)}
    write_text(layout.model, json.dumps(facts, indent=2) + "\n")
    _ask(settings, layout, name, model, tokenizer)


def _method(settings: DemoSettings, layout: Layout, name: str) -> None:
    """Train a method unless it is finished, and ask what was saved of it."""
    run = layout.run(name)
    if not run.finished:
        task = get_task(settings.task, **settings.task_options)
        train(settings.model, settings.method(name), task, run.path, settings=settings.training())
    model, tokenizer = load_run(run.path, dtype=settings.dtype, device=settings.device)
    _ask(settings, layout, name, model, tokenizer)


def _ask(
    settings: DemoSettings,
    layout: Layout,
    name: str,
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Let a model answer the test examples; the score is written last, and says that all is there."""
    evaluate(
        model,
        tokenizer,
        get_task(settings.task, **settings.task_options),
        split="test",
        limit=settings.test_examples,
        out=layout.records(name),
        name=name,
    ).save(layout.evaluation(name))
