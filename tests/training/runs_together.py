"""Runs of a tiny model that are trained together, and how two runs are compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from small_runs import SETTINGS, tensors
from tiny_language import LastLetter, byte_tokenizer, tiny_model
from trimtab.methods import Method, get_method
from trimtab.training import Job, RunDirectory, TrainingSettings, train_together

METHODS: list[tuple[Method, int]] = [
    (get_method("post-block"), 1),
    (get_method("post-block", learning_rate=2e-2, weight_decay=0.1), 1),
    (get_method("post-block-plus", warmup_ratio=0.4, rate_factors={"down": 2.0, "bias": 4.0}), 1),
    (get_method("1-vec"), 1),
    (get_method("reft"), 1),
    (get_method("lofit-all-heads"), 1),
    (get_method("pre-mlp-nonlinear", layers=[0, 2]), 1),
    (get_method("post-block"), 5),
]
"""Rates, schedules, sites, positions, starts and (the last one) another order of the batches."""
OF_A_CLOCK = {"seconds", "peak_memory", "environment", "together"}


def jobs(out: Path, chosen: list[tuple[Method, int]] | None = None, settings: TrainingSettings = SETTINGS) -> list[Job]:
    """A job for each (method, seed), in numbered directories."""
    chosen = METHODS if chosen is None else chosen
    return [Job(method, replace(settings, seed=seed), out / str(i)) for i, (method, seed) in enumerate(chosen)]


def together(
    out: Path, *args: Any, model: PreTrainedModel | None = None, task: Any = None, **options: Any
) -> list[FloatingPointError | None]:
    """Train the jobs together on the tiny model and the small task."""
    callbacks = options.pop("callbacks", [])
    return train_together(
        tiny_model() if model is None else model,
        jobs(out, *args, **options),
        task or LastLetter(),
        out / "group",
        tokenizer=byte_tokenizer(),
        progress=False,
        callbacks=callbacks,
    )


def files(directory: Path) -> dict[str, bytes]:
    """Every file below a directory."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def assert_same_run(one: RunDirectory, alone: RunDirectory, tolerance: float) -> None:
    """Losses, norms and weights to a tolerance, and all else equal."""
    assert one.recipe() == alone.recipe()
    assert files(one.path).keys() == files(alone.path).keys()
    for name in ("adapter_config.json", "README.md"):
        assert (one.weights / name).read_text() == (alone.weights / name).read_text(), name
    for line, other in zip(one.metrics(), alone.metrics(), strict=True):
        assert list(line) == list(other)
        assert line["loss"] == pytest.approx(other["loss"], rel=tolerance)
        assert line["grad_norm"] == pytest.approx(other["grad_norm"], rel=20 * tolerance)
        rest = ("step", "learning_rate", "epoch", "tokens")
        assert [line[key] for key in rest] == [other[key] for key in rest]
    for name, value in tensors(alone).items():
        torch.testing.assert_close(tensors(one)[name], value, rtol=100 * tolerance, atol=10 * tolerance, msg=name)
    ours, theirs = one.result().to_dict(), alone.result().to_dict()
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=tolerance)
    same = ours.keys() - OF_A_CLOCK - {"loss"}
    assert {key: ours[key] for key in same} == {key: theirs[key] for key in same}
