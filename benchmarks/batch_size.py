"""Batches of one, two and four: post-block-plus and LoRA on the same examples, seed by seed.

    trimtab sweep recipes/smol-batch-size.yaml --together 6    # about three hours on one core; resumes
    python benchmarks/batch_size.py                            # the page's table; seconds

Writes batch_size.jsonl (a line for each method, rate and batch size) into benchmarks/results and the table of
docs/the-method.md. Everything is scored on validation. The error of a mean is the standard error over the seeds, and
so is that of the difference to LoRA's best row, seed by seed. Rows that are not finished are left out.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from typing import Any

from _harness import table
from _measured_parts import fill
from _sweep_options import sweep_options

from trimtab.files import write_text
from trimtab.results import CellRecord
from trimtab.sweeps import load_cells, load_results


def main() -> None:
    """Read, compare, fill the page."""
    options = sweep_options(__doc__, "smol-batch-size")
    finished = [cell for cell in load_cells(options.sweep) if not cell.missing]
    seconds = {run.run: run.training_seconds for run in load_results(options.sweep)}
    lines = [line(cell, statistics.median(seconds[run] for run in cell.runs)) for cell in finished]
    options.results.mkdir(parents=True, exist_ok=True)
    write_text(options.results / "batch_size.jsonl", "".join(json.dumps(each) + "\n" for each in lines))
    fill(options.docs / "the-method.md", "batch_size", tables(lines))
    print(*tables(lines).values(), sep="\n")


def line(cell: CellRecord, seconds: float) -> dict[str, Any]:
    """What is committed of a row."""
    settings: Any = cell.settings
    return {
        "label": cell.method,
        "family": cell.family,
        "learning_rate": cell.learning_rate,
        "batch_size": settings["training"]["batch_size"],
        "examples": settings["training"]["examples"],
        "dtype": settings["training"]["dtype"],
        "seeds": cell.finished_seeds,
        "accuracies": cell.accuracies,
        "n": cell.n,
        "trainable_parameters": cell.trainable_parameters,
        "training_seconds": seconds,
    }


def tables(lines: Sequence[dict[str, Any]]) -> dict[str, str]:
    """A row each, and how far its seeds are from those of LoRA's best row, as far as both have them."""
    best = max(
        (each for each in lines if each["family"] == "lora"), key=lambda each: statistics.fmean(each["accuracies"])
    )
    head = ["method", "rate", "batch", "seeds", "accuracy, %", "mean", "minus LoRA's best"]
    return {"seed by seed": table(head, (row(each, best) for each in lines))}


def row(line: dict[str, Any], best: dict[str, Any]) -> list[str]:
    """The cells of a row."""
    ours, its = (dict(zip(each["seeds"], each["accuracies"], strict=True)) for each in (line, best))
    differences = [ours[seed] - its[seed] for seed in ours if seed in its]
    return [
        line["label"].split()[0],
        f"{line['learning_rate']:g}",
        str(line["batch_size"]),
        ", ".join(map(str, ours)),
        ", ".join(f"{100 * value:.1f}" for value in ours.values()),
        with_error(list(ours.values()), ".1f"),
        "" if line is best or len(differences) < 2 else with_error(differences, "+.1f"),
    ]


def with_error(values: Sequence[float], form: str) -> str:
    """The mean in per cent and its standard error over the seeds."""
    error = statistics.stdev(values) / math.sqrt(len(values))
    return f"{100 * statistics.fmean(values):{form}} ± {100 * error:.1f}"


if __name__ == "__main__":
    main()
