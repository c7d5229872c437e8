"""Time and memory of a training step, side by side.

    python benchmarks/step.py        # all contestants; about 20 minutes on two cores

Writes step.json and step.md into benchmarks/results, and docs/benchmarks.md. Every contestant runs in a fresh
process, `--rounds` times in rotation, on the same batch of random tokens: once with the last 6 tokens of each
row supervised, once with all. Those whose ratios are promised then take `--paired` steps in turn in one process.
`_contestants.py` says what the contestants are. pyreft needs an environment of
its own (`python benchmarks/pyreft_environment.py`) and is left out with a note where that is not there. CPU
and Linux only.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict

from _contestants import (
    FLOOR,
    FULL,
    IN_A_TRAINER,
    IN_THE_LOOP,
    LORA,
    POST_BLOCK,
    TRIMTAB_POST_BLOCK,
    TRL_LORA,
)
from _harness import (
    PYREFT_PYTHON,
    Summary,
    Target,
    add_training_options,
    in_rotation,
    job,
    machine,
    model_directory,
    parser,
    run_fresh,
    run_paired,
    table,
    target_table,
    write_results,
)
from _measure import Measured

PYREFT = "pyreft 0.1.0, LoReFT r=8 on 7 + 7 positions"
CONTESTANTS = (*IN_THE_LOOP, PYREFT, *IN_A_TRAINER)
PAIRED = (FLOOR, POST_BLOCK, LORA, FULL)
WITH_ALL_SUPERVISED = (FLOOR, POST_BLOCK, LORA, FULL, PYREFT, TRIMTAB_POST_BLOCK, TRL_LORA)

TARGETS = (
    ("seconds", POST_BLOCK, FLOOR, Target("step: post-block / floor", "<=", 1.10)),
    ("seconds", LORA, POST_BLOCK, Target("step: LoRA / post-block", ">=", 1.4)),
    ("seconds", TRL_LORA, TRIMTAB_POST_BLOCK, Target("step: LoRA in TRL / post-block in trimtab", ">=", 1.8)),
    ("seconds", FULL, POST_BLOCK, Target("step: full fine-tuning / post-block", ">=", 2.2)),
    ("peak_mib", POST_BLOCK, LORA, Target("memory above the model: post-block / LoRA", "<=", 0.6)),
)


def main() -> None:
    """Measure, print what comes in, write the tables."""
    parsed = parser(__doc__, rounds=1)
    add_training_options(parsed, steps=3)
    parsed.add_argument("--paired", type=int, default=9, help="steps in turn in one process")
    parsed.add_argument("--contestants", nargs="*", choices=CONTESTANTS, default=CONTESTANTS, metavar="NAME")
    options = parsed.parse_args()
    where = machine(options.threads)
    directory = model_directory(options.model, options.dtype)
    present = [name for name in options.contestants if name != PYREFT or PYREFT_PYTHON.exists()]
    keys = [(options.supervised, name) for name in present]
    keys += [(options.tokens, name) for name in present if name in WITH_ALL_SUPERVISED]
    runs: dict[tuple[int, str], list[Measured]] = {key: [] for key in keys}
    for key in in_rotation(keys, options.rounds):
        supervised, name = key
        task = job(options, name, directory, supervised=supervised)
        measured = run_fresh(task, "_pyreft_worker.py", PYREFT_PYTHON) if name == PYREFT else run_fresh(task)
        runs[key].append(measured)
        seconds = Summary.of([measured]).seconds
        print(f"{seconds:7.3f} s  {measured.peak_mib:6.0f} MiB  {name}", file=sys.stderr)

    found: dict[int, dict[str, Summary]] = {}
    for (supervised, name), rounds in runs.items():
        found.setdefault(supervised, {})[name] = Summary.of(rounds)
    paired: dict[int, dict[str, list[float]]] = {}
    for supervised in found:
        tasks = [
            job(options, name, directory, supervised=supervised, steps=options.paired)
            for name in PAIRED
            if name in found[supervised]
        ]
        paired[supervised] = run_paired(tasks) if tasks else {}
    results = {
        f"{supervised} supervised": {
            "fresh": {name: asdict(summary) for name, summary in summaries.items()},
            "paired": paired[supervised],
        }
        for supervised, summaries in found.items()
    }
    write_results("step", options, where, results, markdown(options, found, paired))


def markdown(
    options: argparse.Namespace, found: dict[int, dict[str, Summary]], paired: dict[int, dict[str, list[float]]]
) -> str:
    """The section of the page: by number of supervised tokens a table of contestants and one of targets."""
    parts = [
        "## A training step\n",
        f"Batch {options.rows} x {options.tokens} tokens, base in {options.dtype}, adapters in float32, "
        f"AdamW. Median over {options.rounds} x {options.steps} steps, in brackets those of the rounds. "
        "Memory is the peak above the loaded model.\n",
        "The floor trains one vector on the embedding output: forward and activation gradients, no more. "
        "The language-model head is applied only where there is a label, except in the plain loop, in TRL's "
        "SFTTrainer and in pyreft, whose losses are their own. The plain loop pads batches to 256 tokens. Full "
        "fine-tuning holds its weights in float32, as the method `sft` does: a step of AdamW is smaller than "
        "bfloat16 can add to a weight; the row with bfloat16 weights shows what that costs.\n",
        f"The machine's speed varies from minute to minute. Where quartiles are given, the ratio is the median over "
        f"{options.paired} rounds in which the contestants take one step each, in one process.\n",
    ]
    for supervised, summaries in found.items():
        count = "All" if supervised == options.tokens else f"{supervised} of {options.tokens}"
        rows = [
            _target_row(target, quantity, one, other, summaries, paired[supervised])
            for quantity, one, other, target in TARGETS
            if one in summaries and other in summaries
        ]
        parts += [f"### {count} tokens supervised\n", _contestants(summaries), target_table(rows)]
    if not PYREFT_PYTHON.exists():
        parts.append("pyreft was not measured: `python benchmarks/pyreft_environment.py` had not been run.\n")
    return "\n".join(part for part in parts if part)


def _target_row(
    target: Target,
    quantity: str,
    one: str,
    other: str,
    summaries: dict[str, Summary],
    paired: dict[str, list[float]],
) -> list[str]:
    """A target against the ratio of steps that were taken side by side; of other quantities, that of the medians."""
    if quantity != "seconds" or one not in paired or other not in paired:
        return target.row(getattr(summaries[one], quantity) / getattr(summaries[other], quantity))
    return target.paired_row(paired[one], paired[other])


def _contestants(summaries: dict[str, Summary]) -> str:
    head = ["contestant", "trained", "s a step", "rounds", "/ floor", "/ post-block", "MiB", "/ LoRA's"]
    return table(head, (list(_cells(name, summaries)) for name in summaries))


def _cells(name: str, summaries: dict[str, Summary]) -> Iterator[str]:
    one = summaries[name]
    yield name
    yield f"{one.trainable:,}"
    yield f"{one.seconds:.3f}"
    yield f"({', '.join(f'{seconds:.2f}' for seconds in one.rounds)})"
    for other in (FLOOR, POST_BLOCK):
        yield f"{one.seconds / summaries[other].seconds:.2f}" if other in summaries else ""
    yield f"{one.peak_mib:,.0f}"
    yield f"{one.peak_mib / summaries[LORA].peak_mib:.2f}" if LORA in summaries else ""


if __name__ == "__main__":
    main()
