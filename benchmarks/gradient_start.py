"""Does the start along the gradient reach the default start's loss and accuracy in fewer steps?

    python benchmarks/gradient_start.py     # about half an hour on one core; runs that are done are not repeated

Trains post-block-plus from both starts, the same otherwise (examples, batches, seeds), and scores validation after some
numbers of steps of the same run: the rate falls along one cosine, so a point is no end of a shorter run. Each start
stands at the rate at which its loss is lowest in the end. Writes gradient_start.json and gradient_start.md into
benchmarks/results and gradient-start.svg into docs/assets.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _harness import table
from _validation import Validation, parser_of, settings_of
from matplotlib.figure import Figure
from transformers import TrainerCallback

from trimtab.figures import figure, save_svg, series
from trimtab.files import write_text
from trimtab.methods import get_method
from trimtab.models import device_name, load_model
from trimtab.results import Environment
from trimtab.tasks import get_task
from trimtab.training import TrainingSettings

STARTS: dict[str, str | bool] = {"random": True, "gradient": "gradient"}
RISES = {"loss": False, "accuracy": True}
"""What is scored, and whether more of it is better."""


class ScoreAt(TrainerCallback):
    """Scores the model after some steps; a step that a file beside the run holds is not scored again."""

    def __init__(self, steps: list[int], validation: Validation, file: Path) -> None:
        self.steps = steps
        self.validation = validation
        self.file = file

    @property
    def scores(self) -> dict[str, Any]:
        """What the file holds, by step."""
        found: dict[str, Any] = json.loads(self.file.read_text(encoding="utf-8")) if self.file.exists() else {}
        return found

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Score if it is one of the steps."""
        step, scores = state.global_step, self.scores
        if step in self.steps and str(step) not in scores:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.file, json.dumps({**scores, str(step): self.validation.score(kwargs["model"])}) + "\n")


def main() -> None:
    """Train, score, compare, write."""
    parser = parser_of(__doc__, "gradient-start")
    parser.add_argument("--method", default="post-block-plus")
    parser.add_argument("--rates", type=float, nargs="+", default=[2e-4, 5e-4])
    parser.add_argument("--steps", type=int, nargs="+", default=[25, 50, 100], help="the last one ends a run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    base, tokenizer = load_model(options.model, dtype=options.dtype)
    validation = Validation(get_task(options.task), tokenizer, options.validation, options.answers)
    untrained = validation.score(base)
    tried = {
        start: {rate: _curves(base, start, rate, untrained, validation, options) for rate in options.rates}
        for start in STARTS
    }
    rates = {start: min(found, key=lambda rate, found=found: final_loss(found[rate])) for start, found in tried.items()}
    curves = {start: found[rates[start]] for start, found in tried.items()}
    measured = [what for what in RISES if what in untrained]
    record = {
        "environment": asdict(Environment.collect(device_name(base))),
        "settings": settings_of(options),
        "rates": rates,
        "tried": {start: {f"{rate:g}": found[rate] for rate in options.rates} for start, found in tried.items()},
        "steps_of_the_gradient_start": {what: steps_to_reach(curves, what) for what in measured},
    }
    options.results.mkdir(parents=True, exist_ok=True)
    write_text(options.results / "gradient_start.json", json.dumps(record, indent=1) + "\n")
    write_text(options.results / "gradient_start.md", markdown(tried, measured))
    save_svg(drawing_of(curves, rates, measured), options.docs / "assets" / "gradient-start.svg")
    print(f"steps after which the gradient start is where the random start is: {record['steps_of_the_gradient_start']}")


def _curves(
    base: Any,
    start: str,
    rate: float,
    untrained: dict[str, Any],
    validation: Validation,
    options: argparse.Namespace,
) -> list[dict[str, Any]]:
    """The scores by step of every seed, from one start at one rate."""
    method = get_method(options.method, learning_rate=rate, init_weights=STARTS[start])
    last, found = max(options.steps), []
    for seed in options.seeds:
        settings = TrainingSettings(
            examples=last * options.batch_size, batch_size=options.batch_size, max_steps=last, seed=seed
        )
        name = f"{start}-{rate:g}-{seed}"
        scored = ScoreAt(options.steps, validation, options.runs / f"{name}.json")
        validation.score_of_run(base, method, options.runs / name, settings, (scored,))
        found.append({"seed": seed, "scores": {"0": untrained, **scored.scores}})
        print(name, scored.scores, flush=True)
    return found


def final_loss(curves: list[dict[str, Any]]) -> float:
    """The mean loss of the seeds after the last step."""
    return float(means(curves, "loss")[1][-1])


def markdown(tried: dict[str, dict[float, list[dict[str, Any]]]], measured: list[str]) -> str:
    """By start and rate the mean of the seeds after each number of steps, and the seeds at the last one."""
    rows = []
    for start, by_rate in tried.items():
        for rate, curves in by_rate.items():
            for what in measured:
                shown = "{:.1f}" if RISES[what] else "{:.3f}"
                factor = 100 if RISES[what] else 1
                steps, values = means(curves, what)
                last = ", ".join(shown.format(factor * one["scores"][str(steps[-1])][what]) for one in curves)
                rows.append([f"{start}, {rate:g}", what, *(shown.format(factor * value) for value in values), last])
    names = [f"{step} steps" for step in means(next(iter(tried["random"].values())), "loss")[0]]
    return table(["start, rate", "mean", *names, "seeds at the end"], rows)


def means(curves: list[dict[str, Any]], what: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps, and the mean over the seeds of loss or accuracy there."""
    steps = sorted({int(step) for one in curves for step in one["scores"]})
    return np.array(steps), np.array([np.mean([one["scores"][str(step)][what] for one in curves]) for step in steps])


def steps_to_reach(curves: dict[str, list[dict[str, Any]]], what: str) -> dict[str, float | None]:
    """By step of the random start: after how many steps the gradient start's mean loss or accuracy is as good.

    Between two scored steps the mean is taken for linear; None: it never is as good.
    """
    sign = 1 if RISES[what] else -1
    steps, random = means(curves["random"], what)
    _, gradient = means(curves["gradient"], what)
    random, gradient = sign * random, sign * gradient
    found: dict[str, float | None] = {}
    for step, wanted in zip(steps[1:], random[1:], strict=True):
        reached = np.flatnonzero(gradient >= wanted)
        if not reached.size:
            found[str(step)] = None
            continue
        end = int(reached[0])
        if end == 0:
            found[str(step)] = 0.0
            continue
        share = (wanted - gradient[end - 1]) / (gradient[end] - gradient[end - 1])
        found[str(step)] = float(steps[end - 1] + share * (steps[end] - steps[end - 1]))
    return found


def drawing_of(curves: dict[str, list[dict[str, Any]]], rates: dict[str, float], measured: list[str]) -> Figure:
    """Loss, and accuracy where it was measured, over the steps: mean of the seeds, and from the least to the most."""
    labels = {"loss": "validation loss, nats an answer token", "accuracy": "validation accuracy, %"}
    with figure("gradient-start", 4.6 * len(measured), 3.8) as drawing:
        for axes, what in zip(np.atleast_1d(drawing.subplots(1, len(measured))), measured, strict=True):
            factor = 100 if RISES[what] else 1
            for index, (start, of_seeds) in enumerate(curves.items()):
                steps, mean = means(of_seeds, what)
                each = factor * np.array([[one["scores"][str(step)][what] for step in steps] for one in of_seeds])
                spread = [factor * mean - each.min(0), each.max(0) - factor * mean]
                label = f"{start} start, rate {rates[start]:g}"
                axes.errorbar(steps, factor * mean, yerr=spread, label=label, **series(index))
            axes.set_xlabel("optimiser steps")
            axes.set_ylabel(labels[what])
            axes.grid(axis="y")
            axes.legend()
    return drawing


if __name__ == "__main__":
    main()
