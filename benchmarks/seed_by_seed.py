"""The rows of a sweep seed by seed, with their losses and gradients, and how far they are from LoRA.

    trimtab sweep recipes/smol-clipping.yaml --together 6               # an hour or two; resumes
    python benchmarks/seed_by_seed.py --sweep runs/smol-clipping       # the page's table; seconds

So too for recipes/smol-fewer-examples.yaml. Writes NAME.jsonl (a line for each row; NAME is "clipping" here) into
benchmarks/results and the table of docs/gradient-clipping.md. Everything is scored on validation. Beside the accuracy
stand the training loss of the second half of the only epoch, when every example is a new one, and the norm of the
gradient before it is clipped: its median, and how often it is above 1. Errors are standard errors over the seeds, and
so are those of the differences to LoRA's best row, seed by seed. Rows that are not finished are left out; runs that
were taken over from their records have no norms.
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
from trimtab.results import CellRecord, RunRecord
from trimtab.sweeps import SweepDirectory, load_cells, load_results
from trimtab.training import RunDirectory


def main() -> None:
    """Read, compare, fill the page."""
    options = sweep_options(__doc__, "smol-clipping")
    name = options.sweep.name.removeprefix("smol-")
    runs = {run.run: run for run in load_results(options.sweep)}
    finished = [cell for cell in load_cells(options.sweep) if not cell.missing]
    lines = [line(cell, [runs[name] for name in cell.runs], SweepDirectory(options.sweep)) for cell in finished]
    options.results.mkdir(parents=True, exist_ok=True)
    write_text(options.results / f"{name}.jsonl", "".join(json.dumps(each) + "\n" for each in lines))
    fill(options.docs / "gradient-clipping.md", name, tables(lines))
    print(*tables(lines).values(), sep="\n")


def line(cell: CellRecord, runs: Sequence[RunRecord], sweep: SweepDirectory) -> dict[str, Any]:
    """What is committed of a row."""
    settings: Any = cell.settings
    norms = gradient_norms([RunDirectory(sweep.home(run.training) / "training") for run in runs])
    training = ("batch_size", "examples", "max_grad_norm", "dtype")
    return {
        "method": cell.method,
        "family": cell.family,
        "learning_rate": cell.learning_rate,
        **{key: settings["training"][key] for key in training},
        "seeds": cell.finished_seeds,
        "accuracies": cell.accuracies,
        "n": cell.n,
        "losses": [late_loss(run.loss_curve) for run in runs],
        "median_norm": statistics.median(norms) if norms else None,
        "norms_above_1": statistics.fmean(norm > 1 for norm in norms) if norms else None,
        "trainable_parameters": cell.trainable_parameters,
        "environment": runs[0].to_dict()["environment"],
    }


def gradient_norms(runs: Sequence[RunDirectory]) -> list[float]:
    """The norm at every step of all runs; none if one was taken over from its record, which does not have them."""
    if not all(run.metrics_file.is_file() for run in runs):
        return []
    return [each["grad_norm"] for run in runs for each in run.metrics()]


def late_loss(curve: Sequence[Sequence[float]]) -> float:
    """The mean of the second half of a curve's points."""
    return statistics.fmean(loss for _, loss in curve[len(curve) // 2 :])


def tables(lines: Sequence[dict[str, Any]]) -> dict[str, str]:
    """A row each, and how far its seeds are from those of LoRA's best row."""
    (best, *_) = sorted(
        (each for each in lines if each["family"] == "lora"), key=lambda each: -statistics.fmean(each["accuracies"])
    )
    head = [
        "method",
        "rate",
        "clipped to",
        "accuracy, %",
        "mean",
        "minus LoRA's best",
        "loss",
        "minus LoRA's",
        "norm",
        "above 1",
    ]
    return {"seed by seed": table(head, (row(each, best) for each in lines))}


def row(line: dict[str, Any], best: dict[str, Any]) -> list[str]:
    """The cells of a row."""
    accuracies = [100 * value for value in line["accuracies"]]
    return [
        line["method"],
        f"{line['learning_rate']:g}",
        f"{line['max_grad_norm']:g}" if line["max_grad_norm"] else "no",
        ", ".join(f"{value:.1f}" for value in accuracies),
        with_error(accuracies, ".1f"),
        "" if line is best else with_error([100 * each for each in differences("accuracies", line, best)], "+.1f"),
        with_error(line["losses"], ".3f"),
        "" if line is best else with_error(differences("losses", line, best), "+.3f"),
        "" if line["median_norm"] is None else f"{line['median_norm']:.2f}",
        "" if line["norms_above_1"] is None else f"{100 * line['norms_above_1']:.0f} %",
    ]


def differences(name: str, line: dict[str, Any], other: dict[str, Any]) -> list[float]:
    """What a row has more than another, seed by seed."""
    if line["seeds"] != other["seeds"]:
        raise SystemExit(f"{line['method']} and {other['method']} have other seeds.")
    return [mine - its for mine, its in zip(line[name], other[name], strict=True)]


def with_error(values: Sequence[float], form: str) -> str:
    """The mean and its standard error over the seeds."""
    error = statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.fmean(values):{form}} ± {error:{form.removeprefix('+')}}"


if __name__ == "__main__":
    main()
