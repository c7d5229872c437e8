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
from dataclasses import dataclass, field
from typing import Any

import torch
from _contestants import IN_THE_LOOP, LORA, NORMALIZED, POST_BLOCK
from _decoding import Decoding, in_turns, timed
from _harness import Target, in_rotation, machine, parser, table, target_table, write_results
from _measure import Job
from torch import Tensor, nn

from trimtab.evaluation import evaluate
from trimtab.models import load_model
from trimtab.tuners.steering.layer import SteeringLayer

BASE, AGAIN = "base", "base, a second time"
ADAPTED = (POST_BLOCK, NORMALIZED, LORA)
TASK = "listops-small"
BATCH_TOKENS = {"one by one": 1, "in batches": 8192}

WARM_UP = 1
"""Rounds that do not count: the first calls are slower than all others."""

Rounds = dict[tuple[int, str], list[float]]
"""By rows and model: a number of each round."""


@dataclass
class Generated:
    """What the rounds of the generation gave.

    Attributes:
        seconds: the median over the tokens of a round.
        ratios: the median over the tokens of a round of their time by that of the base's token in the same turn.
    """

    seconds: Rounds = field(default_factory=dict)
    ratios: Rounds = field(default_factory=dict)


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
    models, tokenizer = _models(options)
    generated = _generation(models, options)
    inside = {rows: _inside(models[POST_BLOCK], rows, options) for rows in options.rows}
    evaluated = _evaluation(models[POST_BLOCK], tokenizer, options)
    results = {
        "seconds a token": _named(generated.seconds),
        "ratio to the base": _named(generated.ratios),
        "seconds in a steering layer": {f"{rows} at a time": seconds for rows, seconds in inside.items()},
        "examples a second": evaluated.throughput,
    }
    write_results("generation", options, where, results, markdown(options, generated, inside, evaluated))


def _models(options: argparse.Namespace) -> tuple[dict[str, Any], Any]:
    """All models on the weights of one: where they lie in memory is no difference between them."""
    models: dict[str, Any] = {}
    for name in (BASE, AGAIN, *ADAPTED):
        base, tokenizer = load_model(options.model, dtype=options.dtype, device="cpu")
        if models:
            base.load_state_dict(models[BASE].state_dict(), assign=True)
        models[name] = (IN_THE_LOOP[name].attach(base, Job(name, options.model)) if name in ADAPTED else base).eval()
    return models, tokenizer


def _named(rounds: Rounds) -> dict[str, list[float]]:
    return {f"{name}, {rows} at a time": numbers for (rows, name), numbers in rounds.items()}


def _generation(models: dict[str, nn.Module], options: argparse.Namespace) -> Generated:
    generated = Generated()
    for number in range(WARM_UP + options.rounds):
        for rows in options.rows:
            found = in_turns(models, _prompt(models[BASE], rows, options.prompt), options.new)
            if number < WARM_UP:
                continue
            for name, tokens in found.items():
                second = statistics.median(tokens)
                ratio = statistics.median(mine / theirs for mine, theirs in zip(tokens, found[BASE], strict=True))
                generated.seconds.setdefault((rows, name), []).append(second)
                generated.ratios.setdefault((rows, name), []).append(ratio)
                took = f"{1000 * second:7.1f} ms a token, {ratio:.3f} x the base's, {rows} at a time"
                print(f"round {number - WARM_UP + 1}: {took}  {name}", file=sys.stderr)
    return generated


def _inside(model: Any, rows: int, options: argparse.Namespace) -> list[float]:
    """The median seconds of a steering layer's forward, with so many sequences, in each round."""
    layers = [module for module in model.modules() if isinstance(module, SteeringLayer)]
    medians = []
    for _ in range(options.rounds):
        decoding = Decoding(model, _prompt(model, rows, options.prompt))
        decoding.step()
        with timed(layers) as seconds:
            for _ in range(options.new - 1):
                decoding.step()
        medians.append(statistics.median(seconds))
    return medians


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


def markdown(
    options: argparse.Namespace, generated: Generated, inside: dict[int, list[float]], evaluated: Evaluated
) -> str:
    """The section of the page."""
    cells = [
        [name, str(rows), f"{1000 * statistics.median(seconds):.1f}", f"{statistics.median(ratios):.3f}"]
        for ((rows, name), seconds), ratios in zip(generated.seconds.items(), generated.ratios.values(), strict=True)
    ]
    batched, single = (statistics.median(evaluated.throughput[how]) for how in ("in batches", "one by one"))
    targets = [
        Target(f"generation: post-block / base, {rows} at a time", "<=", 1.05).rounds_row(
            generated.ratios[rows, POST_BLOCK]
        )
        for rows in options.rows
    ]
    targets.append(Target("evaluation: in batches / one by one", ">=", 4.0).row(batched / single))
    calls = ", ".join(
        f"{1e6 * statistics.median(seconds):.0f} µs with {rows} sequence{'' if rows == 1 else 's'}"
        for rows, seconds in inside.items()
    )
    parts = [
        "## Generation and evaluation\n",
        f"Median time of one of {options.new} new tokens after a prompt of {options.prompt}, over {options.rounds} "
        "rounds in which the models take turns token by token. The ratio of a round is the median over its tokens, "
        "each against the base's in the same turn; that of the table, and of a target, is the median over the rounds. "
        "Adapters are not merged; LoRA's can be, and costs nothing then.\n",
        table(["model", "sequences", "ms a token", "/ base"], cells),
        "The base stands there twice: how far its second ratio is from 1 is what this machine cannot tell apart. "
        f"A call of a steering layer takes {calls} ({POST_BLOCK} alone); the rest of what an adapter costs is "
        "PyTorch's handling of the hooks.\n",
        f"Evaluation of {evaluated.n} examples of {TASK} with {POST_BLOCK}, median of {options.evaluations} "
        f"rounds: {single:.2f} examples a second one by one, {batched:.2f} in batches of similar length with "
        f"at most {BATCH_TOKENS['in batches']:,} tokens.\n",
        target_table(targets),
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    main()
