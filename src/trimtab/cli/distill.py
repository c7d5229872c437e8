"""The verb `distill`."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import AutoTokenizer, PreTrainedModel

from trimtab import evaluation
from trimtab.checkpoints import require_json
from trimtab.cli.loading import LoadOptions, recipe_of
from trimtab.cli.parser import usage_errors
from trimtab.distillation import (
    DistillationSettings,
    answered,
    read_prompts,
    require_same_tokens,
    twin,
)
from trimtab.distillation import (
    distill as fit_adapter,
)
from trimtab.distillation.compatibility import require_linear, require_related
from trimtab.encoding import encode_prompt, require_answerable
from trimtab.files import new_directory
from trimtab.models import AnyModel, context_length, load_model
from trimtab.sites import locate
from trimtab.tasks import get_task
from trimtab.training import RunDirectory
from trimtab.tuners.saved import load_adapter
from trimtab.tuners.steering import SteeringConfig

ANSWER_TOKENS = 64
"""How long the tuned model may answer where no task says it."""

REPORT = "report.json"


@dataclass(frozen=True)
class StudentOptions:
    """The adapter that is fitted.

    Args:
        intervention: low_rank (linear) or vector.
        r: rank of a low-rank map.
        use_bias: add a constant vector to a low-rank map.
        normalize: a low-rank map reads h / rms(h) instead of h.
        layers: which decoder layers, as in [0,1,2]; all if not given.
        positions: which tokens: all, all_but_first(n), last_prompt, first_last(n,m) or generated.
    """

    intervention: str = "low_rank"
    r: int = 8
    use_bias: bool = True
    normalize: bool = True
    layers: list[int] | None = None
    positions: str = "all"

    def config(self) -> SteeringConfig:
        """The configuration; bias and normalisation are those of a low-rank map.

        Raises:
            ValueError: an option out of range, or an intervention without a closed form.
        """
        given = asdict(self)
        if self.intervention != "low_rank":
            given |= {"use_bias": False, "normalize": False}
        config = SteeringConfig(task_type="CAUSAL_LM", **given)
        require_linear(config)
        return config


def distill(
    *,
    base: str,
    tuned: str,
    task: str | None = None,
    prompts: str | None = None,
    task_options: dict[str, Any] | None = None,
    examples: int = 200,
    data_seed: int = 0,
    chat: bool | None = None,
    answer_tokens: int | None = None,
    student: StudentOptions,
    settings: DistillationSettings,
    options: LoadOptions,
    score: int = 0,
    scratch: str | None = None,
    out: str | None = None,
    overwrite: bool = False,
) -> None:
    """Turn a fine-tuned model into a steering adapter, without training: trimtab distill BASE TUNED --task TASK.

    The prompts are answered by the tuned model; layer by layer a ridge regression of low rank then fits what it adds to
    the base's stream. No label is read. Leaves the adapter and report.json in a directory.

    Args:
        base: the model that was tuned: a model of the Hugging Face hub, a directory, or smollm2-135m.
        tuned: a run directory, the directory of a LoRA or another adapter of PEFT, or a model fine-tuned in full.
        task: whose training prompts are taken: a task's name or a .jsonl, .yaml or .py file.
        prompts: in place of a task: a .jsonl file with "prompt" on each line, or a .txt file, one a line.
        task_options: the task's own, as in --task_options.data_dir data/boolq.
        examples: how many prompts.
        data_seed: which prompts of a task.
        chat: put the prompts into the model's chat template; as in the tuned model's run if not given.
        answer_tokens: tokens that the tuned model may answer; the task's limit (of a file 64) if not given.
        student: the adapter that is fitted.
        settings: of the fit.
        options: how both models are loaded; in float32 unless a dtype is given, since shifts are differences.
        score: how many test examples base, tuned and distilled model answer, for their accuracy; none if not given.
        scratch: folder for the streams of the texts while this runs; the system's for temporary files,
            which may be in memory, if not given.
        out: the directory for the adapter and the report; runs/TASK/distilled if not given.
        overwrite: replace what is there.
    """
    with usage_errors():
        if (task is None) == (prompts is None):
            raise ValueError("Which prompts? Give --task or --prompts, one of them.")
        if score and task is None:
            raise ValueError("--score needs a task, whose test examples are answered: give --task.")
        for name, value in (("examples", examples), ("answer_tokens", answer_tokens)):
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1.")
        if score < 0:
            raise ValueError(f"score={score} must be at least 1, or 0 for no scores.")
        if scratch is not None and not Path(scratch).is_dir():
            raise ValueError(f"scratch={scratch}: there is no such directory.")
        config = student.config()
        chosen = get_task(task, **(task_options or {})) if task is not None else None
        given = read_prompts(Path(prompts))[:examples] if prompts is not None else []
    directory = Path(out) if out else Path("runs", Path(task or prompts or "").stem, "distilled")
    if directory.exists():
        if not (directory / REPORT).is_file():
            raise FileExistsError(f"{directory} holds files of something else: choose another --out.")
        if not overwrite:
            raise FileExistsError(f"{directory} holds a distilled adapter. Choose another --out, or --overwrite it.")
    if chosen is not None:
        given = chosen.load("train", limit=examples, seed=data_seed)
        # A test split that cannot be read, or a prompt that is too long, is known before anything is answered.
        asked = chosen.load("test", limit=score, seed=data_seed) if score else []
    if len(given) < 2:
        raise ValueError(f"{len(given)} prompt(s) are too few: some are fitted on and some held out.")
    limit = answer_tokens or (ANSWER_TOKENS if chosen is None else chosen.max_new_tokens)

    exact = options.for_differences()
    model, tokenizer = load_model(base, **asdict(exact))
    teacher = load_tuned(tuned, model, tokenizer, exact)
    require_related(model, teacher)
    locate(model, config.site, config.layers)
    in_chat = bool(recipe_of(tuned).get("chat")) if chat is None else chat
    if chosen is not None:
        asked_ids = [encode_prompt(tokenizer, example, in_chat) for example in asked]
        require_answerable(asked, asked_ids, chosen.max_new_tokens, context_length(model))
    texts = answered(teacher, tokenizer, given, limit, chat=in_chat)
    scores = {}
    if chosen is not None and score:
        rules: dict[str, Any] = {"task": chosen, "limit": score, "data_seed": data_seed, "chat": in_chat}
        scores = {
            "base": evaluation.evaluate(model, tokenizer, **rules).accuracy,
            "tuned": evaluation.evaluate(teacher, tokenizer, **rules).accuracy,
        }
    folder = None if scratch is None else Path(scratch)
    adapted, result = fit_adapter(model, teacher, texts, config, settings, name=tuned, scratch=folder, progress=True)
    if scores:
        scores["distilled"] = evaluation.evaluate(adapted, tokenizer, **rules).accuracy
        result = replace(result, scores={label: asdict(accuracy) for label, accuracy in scores.items()})
    with new_directory(directory) as filling:
        adapted.save_pretrained(str(filling))
        result.save(filling / REPORT)
        if directory.exists():  # only now: the old one is there until the new one is complete
            shutil.rmtree(directory)
    console = Console()
    for label, accuracy in scores.items():
        console.print(f"{label}: {accuracy}", highlight=False)
    console.print(
        f"{result}\n{result.parameters:,} parameters from {result.texts:,} texts in {result.seconds:,.0f} s\n"
        f"adapter and {REPORT} in {directory}\nnext: trimtab chat --adapter {directory} --compare",
        highlight=False,
        soft_wrap=True,
    )


def load_tuned(tuned: str, base: PreTrainedModel, tokenizer: Any, options: LoadOptions) -> AnyModel:
    """The tuned model: an adapter on a twin of `base`, or a model of its own.

    Raises:
        ValueError: no such model, an adapter or tokenizer for another base, or a pickle.
        FileNotFoundError: a run that has not finished.
    """
    path = Path(tuned)
    of_run = bool(recipe_of(tuned))
    if of_run:
        run = RunDirectory(path)
        if not run.finished:
            raise FileNotFoundError(f"The run in {tuned} has not finished. Start it again with the same recipe.")
        path = run.weights
    if (path / "adapter_config.json").is_file():
        if (path / "tokenizer_config.json").is_file():
            require_json(path)
            require_same_tokens(tokenizer, AutoTokenizer.from_pretrained(path))
        return load_adapter(twin(base), path)
    # As it was written: Path drops the "./" that says that a name is none of the hub's.
    model, own = load_model(str(path) if of_run else tuned, exact=of_run, **asdict(options))
    require_same_tokens(tokenizer, own)
    return model
