"""The verb `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from trimtab.cli.loading import recipe_of
from trimtab.cli.parser import usage_errors
from trimtab.exports import Source, get_export
from trimtab.registry import check_choice
from trimtab.tasks import SPLITS, Task, get_task
from trimtab.training import RunDirectory


def export(
    *,
    format: str,
    adapter: str | None = None,
    model: str | None = None,
    task: str | None = None,
    task_options: dict[str, Any] | None = None,
    split: str = "test",
    examples: int | None = None,
    data_seed: int = 0,
    out: str | None = None,
) -> None:
    """Write an adapter or a task in the format of another program: trimtab export FORMAT.

    The formats: lm-eval (a task, for lm-evaluation-harness) and lm-eval-steered (an adapter that adds a vector, for its
    model type "steered").

    Args:
        format: lm-eval or lm-eval-steered.
        adapter: a run directory, or a directory that PEFT has saved.
        model: the adapter's base; its own if not given.
        task: a task's name or a .jsonl, .yaml or .py file; the one that the adapter was trained on if not given.
        task_options: the task's own, as in --task_options.data_dir data/boolq.
        split: of the task: train, validation or test.
        examples: how many of them; all if not given.
        data_seed: which ones.
        out: the file or directory that is written; exports/FORMAT/NAME if not given.
    """
    with usage_errors():
        chosen = get_export(format)
        check_choice("split", split, SPLITS)
        found = _task(adapter, task, task_options or {}) if chosen.of == "task" else None
        if adapter is None and chosen.of == "adapter":
            raise ValueError(f"The format {format!r} is of an adapter: give --adapter.")
    recipe = recipe_of(adapter)
    folder = None if adapter is None else RunDirectory(Path(adapter)).weights if recipe else Path(adapter)
    source = Source(
        adapter=folder,
        base=model or recipe.get("model"),
        task=found,
        split=split,  # type: ignore[arg-type]  # checked above
        examples=examples,
        data_seed=data_seed,
    )
    named = found.name if found is not None else Path(str(adapter)).name
    said = chosen.write(source, Path(out) if out else Path("exports", format, f"{named}{chosen.suffix}"))
    Console().print(said, highlight=False, markup=False, soft_wrap=True)


def _task(adapter: str | None, task: str | None, options: dict[str, Any]) -> Task:
    """The task of that name, else the one that a run was trained on."""
    recipe = recipe_of(adapter)
    if task is None and not recipe:
        raise ValueError("Which task? Give --task, or a run directory as --adapter, which knows its own.")
    own = {} if task is not None else recipe["task_options"]
    return get_task(task or recipe["task"], **{**own, **options})
