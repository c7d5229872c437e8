"""A sweep that takes seconds: a tiny model in a directory, a task in three small files, two methods."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tiny_directory import save_tiny_model
from trimtab.results import RunRecord
from trimtab.sweeps import SweepRecipe, sweep

METHODS: list[Any] = ["post-block", {"method": "post-block", "r": 1, "label": "rank 1"}]
TRAINING = {"batch_size": 4, "epochs": 2, "dtype": "float32", "checkpoint_every": 1}
OF_A_CLOCK = {"training_seconds", "evaluation_seconds", "peak_memory", "finished", "environment", "together"}
"""What may differ between two sweeps of one recipe."""
Ran = list[tuple[str, float, int, str]]
"""Label, rate, seed and split of what was run, in order."""


def save_small_task(folder: Path, count: int = 12) -> dict[str, Any]:
    """Words, most of which are answered with "a", in train, validation and test; the entry of a recipe."""
    for split, shift in (("train", 0), ("validation", 7), ("test", 13)):
        words = ["".join(chr(97 + (i * 5 + j * 3 + shift) % 26) for j in range(2 + i % 4)) for i in range(count)]
        rows = [{"prompt": f"{split[:2]} {word}\n", "completion": "aab"[i % 3]} for i, word in enumerate(words)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"validation": str(folder / "validation.jsonl"), "test": str(folder / "test.jsonl"), "max_new_tokens": 1}
    return {"name": str(folder / "train.jsonl"), "options": options}


def small_recipe(folder: Path, **changes: Any) -> SweepRecipe:
    """Two methods at two rates, two seeds: 4 trials and 4 finals. `folder` gets the model and the data, once."""
    entry = folder / "task.json"
    if not entry.is_file():
        save_tiny_model(folder / "model")
        entry.write_text(json.dumps(save_small_task(folder)))
    given: dict[str, Any] = {
        "models": [str(folder / "model")],
        "tasks": [json.loads(entry.read_text())],
        "methods": METHODS,
        "learning_rates": [0.05, 0.002],
        "seeds": [0, 1],
        "training": TRAINING,
    }
    return SweepRecipe(**{**given, **changes})


def quietly(recipe: Any, out: Path, **options: Any) -> str:
    """Run a sweep without a probe; what it prints."""
    console = Console(file=io.StringIO(), width=200)
    sweep(recipe, out, console=console, **{"probe": False, **options})
    return str(console.file.getvalue())


def numbers(records: list[RunRecord]) -> dict[str, dict[str, Any]]:
    """What must be the same in every sweep of one recipe, by the run's hash."""
    return {
        record.run: {name: value for name, value in record.to_dict().items() if name not in OF_A_CLOCK}
        for record in records
    }


def assert_same_numbers(found: dict[str, dict[str, Any]], expected: dict[str, dict[str, Any]]) -> None:
    """The same runs with the same scores, and losses that agree to 1e-5 of their size."""
    assert found.keys() == expected.keys()
    for run, ours in found.items():
        theirs = expected[run]
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert [step for step, _ in ours["loss_curve"]] == [step for step, _ in theirs["loss_curve"]]
        curve = [loss for _, loss in theirs["loss_curve"]]
        assert [loss for _, loss in ours["loss_curve"]] == pytest.approx(curve, rel=1e-5)
        rest = ours.keys() - {"loss", "loss_curve"}
        assert {key: ours[key] for key in rest} == {key: theirs[key] for key in rest}
