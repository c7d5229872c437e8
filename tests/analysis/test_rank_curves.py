"""Curves over ranks from records of a sweep that nobody ran."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from trimtab.analysis.rank_curves import rank_curves
from trimtab.figures import svg_text
from trimtab.results import CellRecord, Environment, RunRecord

N = 200
EMPTY = ("learning_rates", "validation", "diverged", "seeds", "finished_seeds", "trials")


def run(name: str, **adapter: Any) -> RunRecord:
    """A finished run; only its name and configuration are read."""
    numbers = ("learning_rate", "accuracy", "standard_error", "loss", "training_seconds", "evaluation_seconds")
    counts = ("seed", "correct", "n", "unparsed", "trainable_parameters", "model_parameters", "steps", "examples")
    return RunRecord(
        **{"run": name, "training": name, "model": "m", "task": "t", "method": name, "family": "steering"},
        **{"split": "test", "dtype": "float32", "examples_file": "", "finished": "", "loss_curve": []},
        **dict.fromkeys(numbers, 0.5),
        **dict.fromkeys((*counts, "tokens", "generated_tokens", "peak_memory"), 1),
        configuration={"method": {"adapter": adapter}},
        environment=Environment({}, "", "", "cpu", None, ""),
    )


def cell(
    run: RunRecord, accuracies: list[float], *, model: str = "small", size: int = 135, **changes: Any
) -> CellRecord:
    """The cell that the run belongs to, with the accuracies of its seeds."""
    mean = sum(accuracies) / len(accuracies)
    spread = (
        math.sqrt(sum((each - mean) ** 2 for each in accuracies) / (len(accuracies) - 1)) if accuracies[1:] else None
    )
    values: dict[str, Any] = {
        "method": run.method,
        "family": "steering",
        "learning_rate": 1e-3,
        "accuracies": accuracies,
        "accuracy": mean,
        "standard_deviation": spread,
        "standard_error": math.sqrt(mean * (1 - mean) / N),
        "n": N,
        "model_parameters": size * 10**6,
        "trainable_parameters": 1,
        "runs": [run.run],
        "missing": [],
    }
    lists: dict[str, Any] = {name: [] for name in EMPTY}
    return CellRecord(**{**values, **lists, "model": model, "task": "sums", "split": "test", **changes})


def sweep() -> tuple[list[CellRecord], list[RunRecord]]:
    """Two sizes, two kinds, ranks in no order, and two methods that are not low-rank steering."""
    cells, runs = [], []
    for size, model in ((270, "large"), (135, "small")):
        for activation in (None, "silu"):
            for rank in (8, 1, 32):
                name = f"{model} {activation} {rank}"
                options = {"r": rank} if activation is None else {"r": rank, "activation": activation}
                runs.append(run(name, **options))
                base = 0.3 + 0.01 * rank if activation is None else 0.4
                cells.append(cell(runs[-1], [base, base + 0.02], model=model, size=size))
    for name, options, family in (("1-vec", {"intervention": "vector"}, "steering"), ("lora", {"r": 8}, "lora")):
        runs.append(run(name, **options))
        cells.append(cell(runs[-1], [0.9], family=family))
    return cells, runs


def test_curves_are_those_of_the_records() -> None:
    """Smallest model first, ranks ascending, mean and spread of the seeds; other methods are passed over."""
    curves = rank_curves(*sweep()).curves
    assert [(each.model, each.activation) for each in curves] == [
        ("small", "linear"),
        ("small", "silu"),
        ("large", "linear"),
        ("large", "silu"),
    ]
    for curve in curves:
        assert [point.rank for point in curve.points] == [1, 8, 32]
    assert [point.accuracy for point in curves[0].points] == pytest.approx([0.32, 0.39, 0.63])
    assert curves[0].points[0].standard_deviation == pytest.approx(0.02 / math.sqrt(2))
    assert curves[0].points[0].seeds == 2


def test_words_and_figure() -> None:
    """The summary names first and best rank, the figure has a panel for each model, the JSON every point."""
    found = rank_curves(*sweep())
    assert "small, sums, linear: 32.0 % at rank 1, at best 63.0 % at rank 32 (n = 200)." in found.summary
    assert "2 seed(s)" in found.caption
    text = svg_text(found.figure())
    assert all(word in text for word in ("small (135 M)", "large (270 M)", "sums", "silu", "linear", "rank"))
    assert json.loads(json.dumps(found.to_dict()))["curves"][3]["points"][2]["rank"] == 32


def test_one_seed_has_the_error_of_its_examples() -> None:
    """Without a spread over seeds the bars are standard errors."""
    runs = [run("a", r=1), run("b", r=2)]
    found = rank_curves([cell(each, [0.5]) for each in runs], runs)
    assert found.curves[0].points[0].standard_deviation is None
    assert "up to 3.5 points" in found.caption
    assert "accuracy, %" in svg_text(found.figure())


def test_unfinished_cells_are_left_out() -> None:
    """A rank with missing runs has no point; a sweep without any is an error."""
    runs = [run("a", r=1), run("b", r=2)]
    cells = [cell(runs[0], [0.5]), cell(runs[1], [0.6], missing=[{"seed": 1}])]
    assert [point.rank for point in rank_curves(cells, runs).curves[0].points] == [1]
    with pytest.raises(ValueError, match="no finished cell of low-rank steering"):
        rank_curves(cells[1:], runs)


def test_two_methods_of_one_rank_are_refused() -> None:
    """Which of them the curve goes through could not be seen."""
    runs = [run("a", r=1), run("b", r=1, site="mlp")]
    with pytest.raises(ValueError, match="'b' is a second method of rank 1, linear, on sums"):
        rank_curves([cell(each, [0.5]) for each in runs], runs)
