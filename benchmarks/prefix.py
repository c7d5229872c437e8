"""Time of a training step and of evaluation with what the prompts begin with computed once, and without.

    python benchmarks/prefix.py      # about 4 minutes on two cores

Writes prefix.json and prefix.md into benchmarks/results, and docs/benchmarks.md. One process; the two ways take turns
on the same batches of a task's examples of similar length, as training makes them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from typing import Any

import torch
from _contestants import IN_THE_LOOP, LORA, NORMALIZED
from _harness import in_rotation, machine, parser, table, write_results
from _measure import Job
from torch.nn.utils.rnn import pad_sequence

from trimtab.encoding import encode_prompt
from trimtab.evaluation import generate_answers
from trimtab.models import context_length, load_model
from trimtab.prefix import shared_prefix
from trimtab.tasks import get_task
from trimtab.training.batches import LengthGroupedSampler
from trimtab.training.data import supervised_dataset
from trimtab.training.loss import IGNORED, CompletionLoss

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
SHARED, WHOLE = "shared", "whole"


def main() -> None:
    """Measure, write the tables."""
    parsed = parser(__doc__, rounds=9)
    parsed.add_argument("--task", default="listops-small")
    parsed.add_argument("--rows", type=int, nargs="+", default=[4, 8], help="examples in a batch")
    parsed.add_argument("--examples", type=int, default=64, help="that are answered")
    options = parsed.parse_args()
    where = machine(options.threads)
    torch.set_num_threads(options.threads)
    seconds: dict[str, dict[str, list[float]]] = {}
    shares: dict[int, float] = {}
    for name in (NORMALIZED, LORA):
        base, tokenizer = load_model(options.model, dtype=options.dtype, device="cpu")
        model: Any = IN_THE_LOOP[name].attach(base, Job(name, options.model)).train()
        for rows in options.rows:
            batches = _batches(model, tokenizer, options.task, rows, options.rounds)
            shares[rows] = statistics.mean(_saved(model, batch) for batch in batches)
            seconds[f"step of {name}, {rows} rows"] = _steps(model, batches)
        if name == NORMALIZED:
            seconds[f"answers to {options.examples} examples"] = _answers(model, tokenizer, options)
    write_results("prefix", options, where, {"seconds": seconds}, markdown(options, seconds, shares))


def _batches(model: Any, tokenizer: Any, task: str, rows: int, count: int) -> list[Batch]:
    examples = get_task(task).load("train", limit=200)
    dataset = supervised_dataset(examples, tokenizer, context_length(model))
    order = list(LengthGroupedSampler([len(ids) for ids in dataset["input_ids"]], rows, seed=0))
    batches = []
    for first in range(0, count * rows, rows):
        chosen = dataset[order[first : first + rows]]
        ids = [torch.tensor(each) for each in chosen["input_ids"]]
        labels = [torch.tensor(each) for each in chosen["labels"]]
        mask = pad_sequence([torch.ones_like(each) for each in ids], batch_first=True)
        batches.append((pad_sequence(ids, True), mask, pad_sequence(labels, True, IGNORED)))
    return batches


def _saved(model: Any, batch: Batch) -> float:
    """The share of a batch's tokens that is not computed."""
    ids, _, labels = batch
    prefix = shared_prefix(model, ids, (labels != IGNORED).int().argmax(dim=1))
    return prefix * (len(ids) - 1) / ids.numel()


def _steps(model: Any, batches: list[Batch]) -> dict[str, list[float]]:
    """Seconds of forward and backward passes and an AdamW step."""
    losses = {SHARED: CompletionLoss(model, share_prefix=True), WHOLE: CompletionLoss(model)}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)

    def step(how: str, batch: Batch) -> float:
        start = time.perf_counter()
        losses[how](*batch).backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - start

    for how in losses:
        step(how, batches[0])  # the first call is slower than all others
    found: dict[str, list[float]] = {how: [] for how in losses}
    for number, batch in enumerate(batches):
        for how in reversed(found) if number % 2 else found:
            found[how].append(step(how, batch))
    return found


def _answers(model: Any, tokenizer: Any, options: argparse.Namespace) -> dict[str, list[float]]:
    task = get_task(options.task)
    prompts = [encode_prompt(tokenizer, each) for each in task.load("test", limit=options.examples)]
    found: dict[str, list[float]] = {SHARED: [], WHOLE: []}
    for how in in_rotation(list(found), 3):
        start = time.perf_counter()
        generate_answers(model, tokenizer, prompts, task.max_new_tokens, share_prefix=how == SHARED)
        found[how].append(time.perf_counter() - start)
        print(f"{found[how][-1]:6.2f} s for all answers, prefix {how}", file=sys.stderr)
    return found


def markdown(options: argparse.Namespace, seconds: dict[str, dict[str, list[float]]], shares: dict[int, float]) -> str:
    """The section of the page."""
    cells = []
    for what, found in seconds.items():
        ratios = [whole / shared for whole, shared in zip(found[WHOLE], found[SHARED], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        medians = [f"{statistics.median(found[how]):.3f}" for how in (WHOLE, SHARED)]
        cells.append([what, *medians, f"{middle:.2f}", f"{low:.2f} to {high:.2f}"])
    saved = ", ".join(f"{share:.0%} of the tokens in batches of {rows}" for rows, share in shares.items())
    parts = [
        "## What prompts begin with, computed once\n",
        f"The prompts of {options.task} begin alike; computed once a batch, that saves {saved}. Seconds are medians; "
        "the speed-up is the median of the ratios of the same batch computed both ways, in turn.\n",
        table(["", "whole rows, s", "shared, s", "speed-up", "quartiles"], cells),
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    main()
