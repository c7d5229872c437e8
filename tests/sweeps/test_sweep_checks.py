"""What a sweep does before its first run: the plan, and what it refuses; and that it reads no split too many."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from sweeps.small_sweep import METHODS, TRAINING, Ran, quietly, small_recipe
from trimtab.sweeps import UnfinishedSweepError, load_results
from trimtab.tasks import get_task


def test_the_plan_is_printed_and_nothing_written(folder: Path, tmp_path: Path) -> None:
    """Runs, parameters, and a time from a probe."""
    printed = quietly(small_recipe(folder), tmp_path / "out", plan_only=True, probe=True)
    assert f"{2 * 8 * 32 * 3:,}" in printed
    assert "0 of 8 runs done" in printed
    assert "to go with 1 worker(s)" in printed
    assert not (tmp_path / "out").exists()


def test_something_else_in_the_directory_is_left_alone(folder: Path, tmp_path: Path) -> None:
    """A folder that holds no sweep is refused before anything runs."""
    (tmp_path / "thesis.txt").write_text("four years of work")
    with pytest.raises(FileExistsError, match="something else"):
        quietly(small_recipe(folder), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_missing_data_is_said_before_anything_runs(folder: Path, tmp_path: Path, ran: Ran) -> None:
    """The file is named; no directory is made."""
    task = {"name": str(folder / "train.jsonl"), "options": {"validation": str(tmp_path / "gone.jsonl")}}
    with pytest.raises(OSError, match=r"gone\.jsonl"):
        quietly(small_recipe(folder, tasks=[task]), tmp_path / "out")
    assert ran == []
    assert not (tmp_path / "out").exists()


def test_a_task_without_test_examples_is_not_tested_on_what_it_trained_on(
    folder: Path, tmp_path: Path, ran: Ran
) -> None:
    """A JSONL file without the option `test` is refused before anything runs, unless only validation is asked."""
    task = {"name": str(folder / "train.jsonl"), "options": {"validation": 0.25, "max_new_tokens": 1}}
    with pytest.raises(ValueError, match=r"train\.jsonl' has no test examples of its own"):
        quietly(small_recipe(folder, tasks=[task]), tmp_path / "out")
    assert ran == []
    quietly(small_recipe(folder, tasks=[task], stage="validation", methods=METHODS[:1]), tmp_path / "out")
    assert len(ran) == 3  # two rates, and the second seed at the better one


def test_at_stage_validation_the_test_split_is_never_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither scored nor loaded."""
    asked: list[str] = []
    load = type(get_task("x.jsonl")).load
    monkeypatch.setattr(
        "trimtab.tasks.base.Task.load",
        lambda self, split, **given: (asked.append(split), load(self, split, **given))[1],
    )
    quietly(small_recipe(folder, stage="validation", methods=["post-block"]), tmp_path / "out", probe=True)
    assert set(asked) == {"train", "validation"}
    assert {each.split for each in load_results(tmp_path / "out")} == {"validation"}
    assert len(load_results(tmp_path / "out")) == 3


@pytest.mark.parametrize(
    ("rates", "size", "failed", "end"),
    [([1e30, 1e29], 2, 2, pytest.raises(UnfinishedSweepError)), ([1e30, 0.002], 3, 1, nullcontext())],
    ids=["all", "one"],
)
def test_the_plan_and_the_bar_come_to_an_end_when_runs_diverge(
    folder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    rates: list[float],
    size: int,
    failed: int,
    end: AbstractContextManager[object],
) -> None:
    """What can never be run is neither counted nor to go, be it that all rates have diverged or one of them."""
    training = {**TRAINING, "max_grad_norm": 1e30}
    recipe = small_recipe(folder, methods=["post-block"], learning_rates=rates, seeds=[0], training=training)
    with end:
        quietly(recipe, tmp_path / "out")
    assert f"[{size}/{size}]" in capfd.readouterr().err
    printed = quietly(recipe, tmp_path / "out", plan_only=True)
    assert f"{size - failed} of {size} runs done, {failed} failed" in printed
    assert f"{size - failed}/{size}, {failed} failed" in printed
    assert "worker(s)" not in printed  # nothing is to go
