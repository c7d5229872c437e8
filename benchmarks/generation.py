"""Time of generation with an adapter and without, and of evaluation in batches and one by one.

    python benchmarks/generation.py  # about 8 minutes on two cores

Writes generation.json and generation.md into benchmarks/results, and docs/benchmarks.md. One process holds
the base and the adapted models; they decode greedily, with transformers' own dynamic cache, and take turns token
by token. The first token, which reads the prompt, does not count.
Adapters are fresh: they do the work of trained ones and write the text of the base.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import dataclass
from typing import Any

import torch
from _contestants import IN_THE_LOOP, LORA, NORMALIZED, POST_BLOCK
from _decoding import in_turns
from _harness import Target, in_rotation, machine, parser, table, target_table, write_results
from _measure import Job
from torch import Tensor, nn

from trimtab.evaluation import evaluate
from trimtab.models import load_model

BASE = "base"
ADAPTED = (POST_BLOCK, NORMALIZED, LORA)
TASK = "listops-small"
BATCH_TOKENS = {"one by one": 1, "in batches": 8192}

WARM_UP = 1
"""Rounds that do not count: the first calls are slower than all others."""

Seconds = dict[tuple[int, str], list[float]]
"""By rows and model: the median seconds of a token, in each round."""


@dataclass(frozen=True)
class Evaluated:
    """Examples a second of the same examples: in each round, by the way that batches are made."""

    n: int
    throughput: dict[str, list[float]]


def main() -> None:
    """Measure, write the tables."""
    parsed = parser(__doc__, rounds=13)
    parsed.add_argument("--rows", type=int, nargs="+", default=[1, 8], help="sequences at a time")
    parsed.add_argument("--prompt", type=int, default=32, help="tokens of a prompt")
    parsed.add_argument("--new", type=int, default=32, help="tokens that are generated")
    parsed.add_argument("--examples", type=int, default=48, help="that are evaluated")
    parsed.add_argument("--evaluations", type=int, default=2, help="rounds of the evaluation")
    options = parsed.parse_args()
    where = machine(options.threads)
    torch.set_num_threads(options.threads)
    models: dict[str, Any] = {}
    for name in (BASE, *ADAPTED):
        base, tokenizer = load_model(options.model, dtype=options.dtype, device="cpu")
        adapted = base if name == BASE else IN_THE_LOOP[name].attach(base, Job(name, options.model))
        models[name] = adapted.eval()
    seconds = _generation(models, options)
    evaluated = _evaluation(models[POST_BLOCK], tokenizer, options)
    results = {
        "seconds a token": {f"{name}, {rows} at a time": rounds for (rows, name), rounds in seconds.items()},
        "examples a second": evaluated.throughput,
    }
    write_results("generation", options, where, results, markdown(options, seconds, evaluated))


def _generation(models: dict[str, nn.Module], options: argparse.Namespace) -> Seconds:
    seconds: Seconds = {(rows, name): [] for rows in options.rows for name in models}
    for number in range(WARM_UP + options.rounds):
        for rows in options.rows:
            for name, tokens in in_turns(models, _prompt(models[BASE], rows, options.prompt), options.new).items():
                if number < WARM_UP:
                    continue
                seconds[rows, name].append(statistics.median(tokens))
                took = f"{1000 * seconds[rows, name][-1]:7.1f} ms a token, {rows} at a time"
                print(f"round {number - WARM_UP + 1}: {took}  {name}", file=sys.stderr)
    return seconds


def _prompt(model: Any, rows: int, tokens: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(10, model.config.vocab_size, (rows, tokens), generator=generator)


def _evaluation(model: Any, tokenizer: Any, options: argparse.Namespace) -> Evaluated:
    throughput: dict[str, list[float]] = {how: [] for how in BATCH_TOKENS}
    for how in in_rotation(list(BATCH_TOKENS), options.evaluations):
        result = evaluate(
            model,
            tokenizer,
            TASK,
            limit=options.examples,
            batch_tokens=BATCH_TOKENS[how],
            progress=False,
        )
        throughput[how].append(result.accuracy.n / result.seconds)
        print(f"{throughput[how][-1]:7.2f} examples a second, {how}", file=sys.stderr)
    return Evaluated(options.examples, throughput)


def markdown(options: argparse.Namespace, seconds: Seconds, evaluated: Evaluated) -> str:
    """The section of the page."""
    median = {key: statistics.median(rounds) for key, rounds in seconds.items()}
    ratio = {(rows, name): median[rows, name] / median[rows, BASE] for rows, name in median}
    cells = [[name, str(rows), f"{1000 * median[rows, name]:.1f}", f"{ratio[rows, name]:.3f}"] for rows, name in median]
    batched, single = (statistics.median(evaluated.throughput[how]) for how in ("in batches", "one by one"))
    targets = [
        Target(f"generation: post-block / base, {rows} at a time", "<=", 1.05).paired_row(
            seconds[rows, POST_BLOCK], seconds[rows, BASE]
        )
        for rows in options.rows
    ]
    targets.append(Target("evaluation: in batches / one by one", ">=", 4.0).row(batched / single))
    parts = [
        "## Generation and evaluation\n",
        f"Median time of one of {options.new} new tokens after a prompt of {options.prompt}, over {options.rounds} "
        "rounds in which the models take turns token by token; a target is held against the median of the rounds' "
        "ratios. Adapters are not merged; LoRA's can be, and costs nothing then.\n",
        table(["model", "sequences", "ms a token", "/ base"], cells),
        f"Evaluation of {evaluated.n} examples of {TASK} with {POST_BLOCK}, median of {options.evaluations} "
        f"rounds: {single:.2f} examples a second one by one, {batched:.2f} in batches of similar length with "
        f"at most {BATCH_TOKENS['in batches']:,} tokens.\n",
        target_table(targets),
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    main()
