"""The grid from which the demo's settings were chosen, on validation examples only.

    python benchmarks/demo_settings.py          # appends to benchmarks/results/demo_settings.jsonl, resumable

Every row trains on the demo's 800 ListOps-small examples (one epoch, batch 8) and is scored on `--validation`
examples that are neither trained on nor part of the demo's test. A row that the file holds is not run again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from trimtab.demo.settings import DemoSettings
from trimtab.evaluation import evaluate
from trimtab.methods import get_method
from trimtab.tasks import get_task
from trimtab.training import load_run, train

RESULTS = Path(__file__).parent / "results" / "demo_settings.jsonl"
COSINE: dict[str, Any] = {"schedule": "cosine", "warmup_ratio": 0.05}
GRID: list[tuple[str, dict[str, Any]]] = [
    ("post-block-normalized", {"learning_rate": 2e-3, **COSINE}),
    ("lora", {"learning_rate": 1e-3, **COSINE}),
    ("post-block-normalized", {"learning_rate": 4e-3, **COSINE}),
    ("post-block-normalized", {"learning_rate": 2e-3, "init_scale": 4.0, **COSINE}),
    ("1-vec", {"learning_rate": 1e-2, **COSINE}),
    ("post-block-normalized", {"learning_rate": 3e-3, "activation": "silu", **COSINE}),
    ("lora", {"learning_rate": 5e-4, **COSINE}),
    ("lora", {"learning_rate": 2e-3, **COSINE}),
    ("1-vec", {"learning_rate": 5e-3}),
    ("post-block-normalized", {"learning_rate": 1e-3, **COSINE}),
    ("post-block", {"learning_rate": 2e-3}),
    ("post-block", {"learning_rate": 1e-3, "init_scale": 1e-3, **COSINE}),
]


def run_row(method: str, changes: dict[str, Any], validation: int) -> dict[str, Any]:
    """Train one row and score it on validation."""
    settings = DemoSettings()
    task = get_task(settings.task)
    with tempfile.TemporaryDirectory() as folder:
        run = train(settings.model, get_method(method, **changes), task, folder, settings=settings.training())
        model, tokenizer = load_run(run.path)
        result = evaluate(model, tokenizer, task, split="validation", limit=validation)
        trained = run.result()
    return {
        "method": method,
        "changes": changes,
        "parameters": trained.trainable_parameters,
        "train_examples": trained.examples,
        "seed": trained.seed,
        "seconds": round(trained.seconds, 1),
        "accuracy": result.accuracy.value,
        "standard_error": result.accuracy.standard_error,
        "n": result.accuracy.n,
    }


def main() -> None:
    """Run the rows that are not in the file yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--validation", type=int, default=400)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    RESULTS.parent.mkdir(exist_ok=True)
    lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.exists() else []
    done = [(row["method"], row["changes"]) for row in map(json.loads, lines)]
    for method, changes in GRID:
        if (method, changes) in done:
            continue
        row = run_row(method, changes, options.validation)
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
