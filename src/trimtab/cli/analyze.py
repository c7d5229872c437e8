"""The verb `analyze`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trimtab.analysis import AnalysisOptions, Subject, analysis_names
from trimtab.analysis import analyze as run_analyses
from trimtab.cli.analysis_page import require_page_packages, write_analyses
from trimtab.cli.loading import LoadOptions, load, recipe_of
from trimtab.cli.parser import usage_errors
from trimtab.distillation import read_prompts, require_same_tokens
from trimtab.encoding import encode_prompt
from trimtab.models import device_name, load_model, model_name
from trimtab.registry import check_choice
from trimtab.results import Environment, without_absolute_path
from trimtab.tasks import SPLITS, Example, get_task
from trimtab.training import RunDirectory, load_run


def analyze(
    *,
    model: str | None = None,
    adapter: str | None = None,
    tuned: str | None = None,
    strength: float | None = None,
    task: str | None = None,
    prompt_file: str | None = None,
    task_options: dict[str, Any] | None = None,
    split: str = "test",
    prompts: int = 200,
    data_seed: int = 0,
    chat: bool | None = None,
    only: list[str] | str | None = None,
    settings: AnalysisOptions,
    options: LoadOptions,
    out: str | None = None,
    overwrite: bool = False,
) -> None:
    """Measure on a model what the paper argues, on one page: trimtab analyze MODEL [ADAPTER] --task TASK.

    What applies is measured: some figures need an adapter or a fine-tuned model, one a joint adapter. What is left out
    is listed with the reason. Writes index.html, analysis.json and the figures.

    Args:
        model: the base: a model of the hub, a directory, or smollm2-135m; the adapter's own if not given.
        adapter: a run directory, or an adapter that PEFT can load: steering, joint or LoRA.
        tuned: a model fine-tuned in full, as a run directory or a model's; the oracle is then its shift.
        strength: of a steering adapter; as it was saved if not given.
        task: whose prompts are read: a task's name or a .jsonl, .yaml or .py file; that of the run if not given.
        prompt_file: in place of a task: a .jsonl file with "prompt" on each line, or a .txt file, one a line.
        task_options: the task's own, as in --task_options.data_dir data/boolq.
        split: of the task: train, validation or test.
        prompts: how many.
        data_seed: which ones.
        chat: put the prompts into the model's chat template; as in training if not given.
        only: analyses by name, as in [mlp_share,oracle]; all that apply if not given.
        settings: of the analyses.
        options: how the models are loaded; dtype auto is float32 here, since shifts are differences.
        out: the directory; if not given, analysis in the run directory, else runs/TASK/analysis.
        overwrite: replace the page that is there.
    """
    names = only.split(",") if isinstance(only, str) else only
    with usage_errors():
        for name in names or ():
            check_choice("analysis", name, analysis_names())
        check_choice("split", split, SPLITS)
        if prompts < 1:
            raise ValueError(f"prompts={prompts} must be at least 1.")
        if task is not None and prompt_file is not None:
            raise ValueError("Which prompts? Give --task or --prompt_file, one of them.")
        recipe = recipe_of(adapter) or recipe_of(tuned)
        if task is None and prompt_file is None and not recipe:
            raise ValueError("Which prompts? Give --task or --prompt_file; only a run directory knows its own.")
        if adapter is not None and _holds_a_model(adapter):
            if tuned is not None:
                raise ValueError(f"{adapter} holds a whole model, as --tuned does: give one of them.")
            adapter, tuned = None, adapter
        if tuned is not None and adapter is None and model is None and not recipe:
            raise ValueError(f"{tuned} was fine-tuned from which model? Give --model.")
        own = {} if task is not None else recipe.get("task_options", {})
        source = task or recipe.get("task")
        chosen = None if prompt_file else get_task(str(source), **{**own, **(task_options or {})})
    require_page_packages()
    run = next((each for each in (adapter, tuned) if recipe_of(each)), None)
    directory = (
        Path(out) if out else Path(run, "analysis") if run else Path("runs", _stem(task, prompt_file), "analysis")
    )
    if (directory / "index.html").exists() and not overwrite:
        raise FileExistsError(f"{directory} holds an analysis. Choose another --out, or --overwrite it.")
    if chosen is None:
        examples: list[Example] = read_prompts(Path(str(prompt_file)))[:prompts]
    else:
        examples = chosen.load(split, limit=prompts, seed=data_seed)  # type: ignore[arg-type]  # checked above

    exact = options.for_differences()
    loaded = load(model or (recipe["model"] if tuned and recipe else None), adapter, strength, exact)
    fine_tuned = None if tuned is None else _load_tuned(tuned, loaded.tokenizer, exact)
    in_chat = bool(recipe.get("chat")) if chat is None else chat
    token_ids = [tuple(encode_prompt(loaded.tokenizer, example, in_chat)) for example in examples]
    subject = Subject(loaded.model, loaded.tokenizer, tuple(token_ids), fine_tuned)
    found = run_analyses(subject, settings, names)
    about = {
        "model": without_absolute_path(model or model_name(loaded.model)),
        "adapter": adapter and without_absolute_path(adapter),
        "tuned": tuned and without_absolute_path(tuned),
        "strength": strength,
        "prompts_of": Path(str(prompt_file)).name if chosen is None else source,
        "split": split if chosen is not None else None,
        "data_seed": data_seed,
        "chat": in_chat,
        "prompts": len(token_ids),
        "tokens": sum(map(len, token_ids)),
        "dtype": str(loaded.model.dtype).removeprefix("torch."),
        **asdict(settings),
    }
    write_analyses(found, about, Environment.collect(device_name(loaded.model)), directory)
    console = Console()
    for name, finding in found.findings.items():
        console.print(f"[bold]{name}[/bold]: ", end="")
        console.print(finding.summary, highlight=False, markup=False, soft_wrap=True)
    for name, reason in found.skipped.items():
        console.print(f"{name}, left out: {reason}", style="dim", highlight=False, markup=False, soft_wrap=True)
    console.print(f"page in {directory / 'index.html'}, numbers in {directory / 'analysis.json'}", highlight=False)


def _holds_a_model(path: str) -> bool:
    """Whether a run directory is that of full fine-tuning."""
    run = RunDirectory(Path(path))
    return run.recipe_file.is_file() and run.setting("method", "family") == "full"


def _load_tuned(path: str, tokenizer: PreTrainedTokenizerBase, options: LoadOptions) -> PreTrainedModel:
    """A model that was fine-tuned in full, from its run directory or from its own."""
    if recipe_of(path):
        if not _holds_a_model(path):
            raise ValueError(f"{path} holds an adapter, not a whole model: give it as the adapter.")
        model, tokens = load_run(Path(path), **asdict(options))
    else:
        model, tokens = load_model(path, **asdict(options))
    require_same_tokens(tokenizer, tokens)
    return model  # type: ignore[return-value]  # no adapter was loaded


def _stem(task: str | None, prompt_file: str | None) -> str:
    return Path(task or prompt_file or "").stem
