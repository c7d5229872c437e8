"""The verb `advise`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from trimtab.analysis.advice import RADII, RANKS, Advice
from trimtab.analysis.advisor import SITES
from trimtab.analysis.advisor import advise as measure
from trimtab.analysis.choice import KINDS, Choice, require_ranks_that_fit
from trimtab.cli.loading import LoadOptions, load
from trimtab.cli.parser import usage_errors
from trimtab.figures import require_matplotlib, save_svg
from trimtab.files import write_text
from trimtab.models import EMBEDDED_MODEL, context_length
from trimtab.positions import parse_positions
from trimtab.registry import check_choice
from trimtab.results import without_absolute_path
from trimtab.sites import locate, site_names
from trimtab.tasks import get_task
from trimtab.theory.first_order_gain import BALLS
from trimtab.training.batch_losses import batch_losses, supervised_tokens
from trimtab.training.data import supervised_dataset
from trimtab.training.settings import require_trainable_dtype


def advise(
    *,
    model: str = EMBEDDED_MODEL,
    task: str,
    task_options: dict[str, Any] | None = None,
    sites: list[str] | None = None,
    layers: list[int] | None = None,
    ranks: list[int] | None = None,
    normalize: bool = True,
    positions: str = "all",
    ball: str = "spectral",
    radius: str = "relative",
    parameters: int | None = None,
    examples: int = 64,
    batch_size: int = 4,
    data_seed: int = 0,
    chat: bool = False,
    memory_gb: float = 4.0,
    rows: int = 10,
    options: LoadOptions,
    out: str | None = None,
    overwrite: bool = False,
) -> None:
    """Say where to steer, before anything is trained: trimtab advise MODEL --task TASK.

    From the gradient of the task's loss on a few examples: the largest first-order gain of a low-rank map or a vector
    at each site, in each layer. Prints a ranking of maps and one of vectors by gain per parameter, which does not
    compare the two, and the best of each kind to run; writes advice.json and advice.svg.

    Args:
        model: a model of the Hugging Face hub, a directory, or smollm2-135m.
        task: a task's name or a .jsonl, .yaml or .py file.
        task_options: the task's own, as in --task_options.data_dir data/boolq.
        sites: which are compared, as in [block,mlp]; block, mlp, mlp_input and attention if not given.
        layers: decoder layers from 0, as in [0,10,20]; all if not given.
        ranks: of the low-rank maps; 1, 2, 4, 8, 16 and 32 if not given.
        normalize: maps read h / rms(h), as post-block-normalized does; with false h, as post-block does.
        positions: which tokens are steered: all, all_but_first(n), last_prompt, first_last(n,m) or generated.
        ball: what bounds a map: spectral (each direction has a length of its own) or frobenius (they share one).
        radius: how long what is written may be: relative (the same share of the hidden states everywhere) or absolute.
        parameters: the most that a suggestion may have; if not given, as many as rank 8 after every block.
        examples: of the training split.
        batch_size: examples in a forward pass.
        data_seed: which examples.
        chat: write the examples in the model's chat template.
        memory_gb: for the sums, in 10^9 bytes; if they need more, the layers are taken in parts, a pass for each.
        rows: of each ranking that are printed.
        options: how the base is loaded.
        out: the directory for advice.json and advice.svg; runs/TASK/advice if not given.
        overwrite: replace the advice that is there.
    """
    with usage_errors():
        chosen = get_task(task, **(task_options or {}))
        for site in sites or ():
            check_choice("site", site, site_names())
        check_choice("ball", ball, BALLS)
        check_choice("radius", radius, RADII)
        parse_positions(positions)
        require_trainable_dtype(options.dtype)
        if ranks is not None and min(ranks, default=0) < 1:
            raise ValueError(f"ranks={ranks} must be whole numbers of at least 1.")
        for name, value in (("examples", examples), ("batch_size", batch_size), ("rows", rows)):
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1.")
    require_matplotlib()
    directory = Path(out) if out else Path("runs", Path(task).stem, "advice")
    if (directory / "advice.json").exists() and not overwrite:
        raise FileExistsError(f"{directory} holds an advice. Choose another --out, or --overwrite it.")
    loaded = load(model, None, None, options)
    compared = SITES if sites is None else tuple(sites)
    hosts = {site: locate(loaded.model, site, layers) for site in compared}
    if ranks is not None and hosts:
        require_ranks_that_fit(ranks, {site: found[0].width for site, found in hosts.items()})
    width = int(loaded.model.config.get_text_config().hidden_size)
    if parameters is not None and parameters < width:
        raise ValueError(f"parameters={parameters} are too few: a vector in one layer has {width:,}.")
    dataset = supervised_dataset(
        chosen.load("train", limit=examples, seed=data_seed), loaded.tokenizer, context_length(loaded.model), chat
    )
    advice = measure(
        loaded.model,  # type: ignore[arg-type]  # a base, as no adapter was asked for
        partial(batch_losses, dataset=dataset, batch_size=batch_size),
        supervised_tokens(dataset),
        sites=compared,
        layers=layers,
        normalize=normalize,
        positions=positions,
        ball=ball,
        radius=radius,
        kept=max(ranks or RANKS),
        memory_gb=memory_gb,
    )
    budget = 2 * width * 8 * advice.model_layers if parameters is None else parameters
    suggestions = advice.best_within(budget, ranks)
    directory.mkdir(parents=True, exist_ok=True)
    save_svg(advice.figure(), directory / "advice.svg")
    shown = without_absolute_path(model)
    commands = {
        kind: train_command(advice, choice, shown, task, task_options, chat) for kind, choice in suggestions.items()
    }
    content = {
        "model": shown,
        "task": task,
        "examples": len(dataset),
        "suggestions": {kind: {**asdict(choice), "command": commands[kind]} for kind, choice in suggestions.items()},
        **advice.to_dict(),
    }
    write_text(directory / "advice.json", json.dumps(content) + "\n")
    console = Console()
    for kind, choices in advice.rankings(ranks).items():
        console.print(ranking_table(advice, kind, choices[:rows]))
    console.print(
        f"{advice.caveat}\n{advice.summary}\nwith at most {budget:,} parameters, the largest gain of each kind:",
        *(_suggestion(kind, suggestions.get(kind), commands.get(kind)) for kind in KINDS),
        *(["Train both and compare them on validation."] if len(commands) == len(KINDS) else []),
        f"all numbers in {directory / 'advice.json'}, the figure in {directory / 'advice.svg'}",
        sep="\n",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _suggestion(kind: str, choice: Choice | None, command: str | None) -> str:
    """The best of a kind and how to train it."""
    if choice is None:
        return f"{kind}: none is so small"
    rank = "" if choice.rank is None else f"r={choice.rank} "
    return (
        f"{kind}: {rank}at {choice.site!r} in {len(choice.layers)} layers ({choice.parameters:,} parameters, gain "
        f"{choice.gain:.3g})\n  {command}"
    )


def ranking_table(advice: Advice, kind: str, choices: Sequence[Choice]) -> Table:
    """Choices of one kind in their order."""
    bounded = f"directions {advice.unit} ({advice.ball})"
    table = Table(title=f"{kind}s by gain per parameter; first-order gain, nats an answer token, {bounded}")
    for column in ("site", "layers", "what"):
        table.add_column(column)
    for column in ("parameters", "gain", "gain / 1,000 parameters"):
        table.add_column(column, justify="right")
    for choice in choices:
        table.add_row(
            choice.site,
            _span(choice.layers),
            choice.what,
            f"{choice.parameters:,}",
            f"{choice.gain:.3g}",
            f"{1000 * choice.gain_per_parameter:.3g}",
        )
    return table


def _span(layers: tuple[int, ...]) -> str:
    """Layers in a table: "10-19", or one by one where some are left out."""
    first, last = layers[0], layers[-1]
    together = len(layers) > 1 and last - first + 1 == len(layers)
    return f"{first}-{last}" if together else ", ".join(map(str, layers))


def train_command(
    advice: Advice,
    choice: Choice,
    model: str,
    task: str,
    task_options: Mapping[str, Any] | None = None,
    chat: bool = False,
) -> str:
    """The command that trains a choice: of the named methods the one that reads as the advice does."""
    words = ["trimtab", "train", "--model", model, "--task", task]
    for option, value in (task_options or {}).items():
        words += [f"--task_options.{option}", str(value)]
    if chat:
        words += ["--chat", "true"]
    if choice.rank is None:
        words += ["--method", "1-vec"]
    elif advice.normalize:
        words += ["--method", "post-block-normalized", "--use_bias", "false"]
    else:
        words += ["--method", "post-block"]
    if choice.rank is not None:
        words += ["--adapter_options.init_weights", "gradient", "--r", str(choice.rank)]
    words += ["--site", choice.site]
    if len(choice.layers) < advice.model_layers:
        words += ["--layers", f"[{','.join(map(str, choice.layers))}]"]
    if advice.positions != "all":
        words += ["--positions", advice.positions]
    return shlex.join(words)
