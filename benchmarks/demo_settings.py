"""The grid from which the demo's settings were chosen, on validation examples only.

    python benchmarks/demo_settings.py          # appends to benchmarks/results/demo_settings.jsonl, resumable

Every row trains on 800 ListOps-small examples (one epoch, clipped to a norm of 1) and is scored on `--validation`
examples that are neither trained on nor part of the demo's test. A row that the file holds is not run again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from trimtab.evaluation import evaluate
from trimtab.methods import get_method
from trimtab.models import EMBEDDED_MODEL
from trimtab.tasks import get_task
from trimtab.training import TrainingSettings, load_run, train

RESULTS = Path(__file__).parent / "results" / "demo_settings.jsonl"
COSINE: dict[str, Any] = {"schedule": "cosine", "warmup_ratio": 0.05}
ONE_RATE: dict[str, Any] = {"learning_rate": 2e-3, "init_weights": "gradient"}
RATES: dict[str, Any] = {**ONE_RATE, "learning_rate": 1e-3, "rate_factors": {"down": 2.0, "bias": 4.0}}
PLUS: dict[str, Any] = {"learning_rate": 5e-4, "rate_factors": {"down": 3.0, "bias": 10.0}}
RANK_32: dict[str, Any] = {"r": 32, "learning_rate": 2.5e-4, "rate_factors": {"down": 3.0, "bias": 20.0}}


@dataclass(frozen=True)
class Row:
    """One training: the method, what is changed in it, and in the settings."""

    method: str
    changes: dict[str, Any]
    batch_size: int = 8
    seed: int = 0
    start_examples: int = 32


GRID = (
    Row("post-block-normalized", {"learning_rate": 2e-3, **COSINE}),
    Row("lora", {"learning_rate": 1e-3, **COSINE}),
    Row("post-block-normalized", {"learning_rate": 4e-3, **COSINE}),
    Row("post-block-normalized", {"learning_rate": 2e-3, "init_scale": 4.0, **COSINE}),
    Row("1-vec", {"learning_rate": 1e-2, **COSINE}),
    Row("post-block-normalized", {"learning_rate": 3e-3, "activation": "silu", **COSINE}),
    Row("post-block-normalized", ONE_RATE, batch_size=4),
    Row("lora", {"learning_rate": 1e-3, **COSINE}, batch_size=4),
    Row("post-block-normalized", ONE_RATE, batch_size=4, seed=1),
    Row("lora", {"learning_rate": 1e-3, **COSINE}, batch_size=4, seed=1),
    Row("1-vec", {"learning_rate": 5e-3}, batch_size=4),
    Row("lora", {"learning_rate": 2e-3, **COSINE}, batch_size=4),
    Row("lora", {"learning_rate": 5e-4, **COSINE}, batch_size=4),
    Row("post-block", {"learning_rate": 2e-3}, batch_size=4),
    Row("post-block-normalized", ONE_RATE, batch_size=4, seed=2),
    Row("lora", {"learning_rate": 1e-3, **COSINE}, batch_size=4, seed=2),
    Row("post-block-normalized", RATES, batch_size=4, start_examples=128),
    Row("post-block-normalized", RATES, batch_size=4, seed=1, start_examples=128),
    Row("post-block-normalized", RATES, batch_size=4, seed=2, start_examples=128),
    Row("post-block-plus", PLUS, batch_size=4, start_examples=128),
    Row("post-block-plus", PLUS, batch_size=4, seed=1, start_examples=128),
    Row("post-block-plus", PLUS, batch_size=4, seed=2, start_examples=128),
    Row("lora", {"learning_rate": 2e-3, **COSINE}, batch_size=4, seed=1),
    Row("lora", {"learning_rate": 2e-3, **COSINE}, batch_size=4, seed=2),
    # Three more seeds of each: three could not tell them apart.
    *(
        row
        for seed in (3, 4, 5)
        for row in (
            Row("lora", {"learning_rate": 2e-3, **COSINE}, batch_size=4, seed=seed),
            Row("post-block-plus", PLUS, batch_size=4, seed=seed, start_examples=128),
        )
    ),
    *(Row("post-block-plus", RANK_32, batch_size=4, seed=seed, start_examples=128) for seed in range(4)),
    *(Row("post-block", {"use_bias": True, "learning_rate": 2e-4}, batch_size=4, seed=seed) for seed in range(6)),
)


def run_row(row: Row, validation: int) -> dict[str, Any]:
    """Train one row and score it on validation."""
    settings = TrainingSettings(
        examples=800, batch_size=row.batch_size, seed=row.seed, start_examples=row.start_examples
    )
    task = get_task("listops-small")
    with tempfile.TemporaryDirectory() as folder:
        method = get_method(row.method, **row.changes)
        run = train(EMBEDDED_MODEL, method, task, folder, settings=settings)
        model, tokenizer = load_run(run.path)
        result = evaluate(model, tokenizer, task, split="validation", limit=validation)
        trained = run.result()
    return {
        **asdict(row),
        "parameters": trained.trainable_parameters,
        "train_examples": trained.examples,
        "seconds": round(trained.seconds, 1),
        "accuracy": result.accuracy.value,
        "standard_error": result.accuracy.standard_error,
        "n": result.accuracy.n,
    }


def main() -> None:
    """Run the rows that are not in the file yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--validation", type=int, default=800)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--methods", nargs="+", help="rows of these methods only; default: all")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    RESULTS.parent.mkdir(exist_ok=True)
    lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.exists() else []
    names = [field.name for field in fields(Row)]
    done = [Row(**{name: row[name] for name in names if name in row}) for row in map(json.loads, lines)]
    for row in GRID:
        if row in done or (options.methods and row.method not in options.methods):
            continue
        result = run_row(row, options.validation)
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
