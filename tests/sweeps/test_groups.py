"""Sweeps whose runs are trained together: the same results in fewer passes, whatever happens to a pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from small_runs import StopAfter
from sweeps.broken_passes import Passes, break_passes, interrupted_group
from sweeps.small_sweep import TRAINING, assert_same_numbers, numbers, quietly, small_recipe
from trimtab.sweeps import (
    SweepRecipe,
    UnfinishedSweepError,
    groups,
    load_failures,
    load_results,
    run_one,
    worker,
)
from trimtab.sweeps.groups import claimed_group, forget_groups
from trimtab.training import RunDirectory


@pytest.fixture(scope="module")
def alone(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The numbers of the small sweep, run by run."""
    out = tmp_path_factory.mktemp("alone") / "out"
    quietly(small_recipe(folder), out)
    return numbers(load_results(out))


def test_the_results_are_those_of_runs_that_are_trained_alone(
    folder: Path, tmp_path: Path, alone: dict[str, dict[str, Any]], passes: Passes
) -> None:
    """All trials in one pass, then the second seeds of both methods in another; nothing of the passes is left."""
    quietly(small_recipe(folder, together=4), tmp_path / "out")
    assert_same_numbers(numbers(load_results(tmp_path / "out")), alone)
    trials = [(method, rate, 0) for method in ("post-block", "post-block(r=1)") for rate in (0.05, 0.002)]
    assert passes[0] == trials
    assert [sorted((method, seed) for method, _, seed in each) for each in passes[1:]] == [
        [("post-block", 1), ("post-block(r=1)", 1)]
    ]
    assert list((tmp_path / "out" / "groups").iterdir()) == []


def test_no_pass_is_larger_than_the_recipe_says(folder: Path, tmp_path: Path, passes: Passes) -> None:
    """Three at most of four trials; what is left over runs alone. At 1, the default, there is no pass."""
    quietly(small_recipe(folder, together=3), tmp_path / "three")
    assert [len(each) for each in passes] == [3, 2]
    passes.clear()
    quietly(small_recipe(folder), tmp_path / "one")
    assert passes == []
    with pytest.raises(ValueError, match="together=0 must be at least 1"):
        SweepRecipe(models=["a"], tasks=["b"], methods=["c"], together=0)


def test_what_cannot_be_trained_together_is_trained_alone(folder: Path, tmp_path: Path, passes: Passes) -> None:
    """LoRA, and a method with other settings of training, beside a group."""
    methods = ["post-block", "lora", {"method": "1-vec", "training": {"batch_size": 3}}]
    quietly(small_recipe(folder, methods=methods, seeds=[0], together=9), tmp_path / "out")
    assert [[method for method, _, _ in each] for each in passes] == [["post-block"] * 2, ["1-vec"] * 2]
    assert len(load_results(tmp_path / "out")) == 9


def test_seeds_of_one_method_are_trained_together(folder: Path, tmp_path: Path, passes: Passes) -> None:
    """With one rate there are no trials: all seeds at once, each with its own order of the examples."""
    recipe = {"methods": ["post-block"], "learning_rates": [0.002], "seeds": [0, 1, 2]}
    quietly(small_recipe(folder, **recipe, together=3), tmp_path / "out")
    assert passes == [[("post-block", 0.002, seed) for seed in (0, 1, 2)]]
    quietly(small_recipe(folder, **recipe), tmp_path / "alone")
    assert_same_numbers(numbers(load_results(tmp_path / "out")), numbers(load_results(tmp_path / "alone")))


def test_an_interrupted_pass_goes_on(
    folder: Path, tmp_path: Path, alone: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, passes: Passes
) -> None:
    """Ctrl-C after four of six steps: the same runs go on together from the checkpoint, to the same numbers."""
    noted = groups.train_together
    break_passes(monkeypatch, KeyboardInterrupt(), steps=4)
    with pytest.raises(KeyboardInterrupt):
        quietly(small_recipe(folder, together=4), tmp_path / "out")
    (home,) = (tmp_path / "out" / "groups").iterdir()
    assert RunDirectory(home / "pass").last_checkpoint() is not None
    begun: list[Path | None] = []
    monkeypatch.setattr(
        groups,
        "train_together",
        lambda *args, **given: (begun.append(RunDirectory(args[3]).last_checkpoint()), noted(*args, **given))[1],
    )
    quietly(small_recipe(folder, together=4), tmp_path / "out")
    assert [checkpoint is not None for checkpoint in begun] == [True, False]
    assert [len(each) for each in passes] == [4, 2]
    assert_same_numbers(numbers(load_results(tmp_path / "out")), alone)


def test_a_pass_that_fails_is_tried_with_half_as_many(
    folder: Path, tmp_path: Path, alone: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when memory runs out with more than two; in the end every run has its result and none has failed."""
    break_passes(monkeypatch, MemoryError("too many"), over=2)
    quietly(small_recipe(folder, together=4), tmp_path / "out")
    assert_same_numbers(numbers(load_results(tmp_path / "out")), alone)
    assert load_failures(tmp_path / "out") == []


def test_an_error_of_one_run_is_its_own(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When passes always fail, runs are tried alone, and what fails there is on record with its error."""
    break_passes(monkeypatch, RuntimeError("the pass broke"))

    def maybe(run: Any, *others: Any) -> Any:
        if (run.learning_rate, run.label) == (0.002, "rank 1"):
            raise RuntimeError("the run broke")
        return run_one(run, *others)

    monkeypatch.setattr(worker, "run_one", maybe)
    with pytest.raises(UnfinishedSweepError, match="the run broke"):
        quietly(small_recipe(folder, together=4), tmp_path / "out")
    assert [failure.message for failure in load_failures(tmp_path / "out")] == ["the run broke"]


def test_a_rate_that_diverges_is_recorded_and_left_out_of_the_choice(
    folder: Path, tmp_path: Path, passes: Passes
) -> None:
    """Its run has failed as it does alone; the other runs of the pass are as without it."""
    training = {**TRAINING, "max_grad_norm": 1e30}
    recipe = {"methods": ["post-block"], "learning_rates": [1e30, 0.002], "seeds": [0], "training": training}
    for name, together in (("out", 2), ("alone", 1)):
        quietly(small_recipe(folder, **recipe, together=together), tmp_path / name)
    assert [len(each) for each in passes] == [2]
    (ours,), (theirs,) = load_failures(tmp_path / "out"), load_failures(tmp_path / "alone")
    assert (ours.run, ours.error, ours.message) == (theirs.run, "FloatingPointError", theirs.message)
    assert "FloatingPointError" in (tmp_path / "out" / ours.traceback_file).read_text()
    assert_same_numbers(numbers(load_results(tmp_path / "out")), numbers(load_results(tmp_path / "alone")))


def test_a_run_that_has_begun_alone_goes_on_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passes: Passes
) -> None:
    """Its checkpoint is not thrown away for a place in a group."""
    out = tmp_path / "out"

    def stopped(run: Any, *others: Any) -> Any:
        return run_one(run, *others, callbacks=[StopAfter(4)])

    monkeypatch.setattr(worker, "run_one", stopped)
    with pytest.raises(KeyboardInterrupt):
        quietly(small_recipe(folder), out)
    monkeypatch.setattr(worker, "run_one", run_one)
    quietly(small_recipe(folder, together=4), out)
    assert ("post-block", 0.05, 0) not in passes[0]
    assert len(passes[0]) == 3


def test_the_holder_of_the_first_run_goes_on_with_a_group(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers that come at once: one resumes the pass, the other leaves its members to it."""
    grid, directory, hashes = interrupted_group(folder, tmp_path / "out", monkeypatch)
    runs = [run for cell in grid.cells for run in cell.trials]
    first, second = (next(run for run in runs if run.training_hash == each) for each in hashes[:2])
    with directory.claimed(first) as mine:
        assert mine
        with claimed_group(second, runs, grid, directory) as group:
            assert group is None
    with claimed_group(second, runs, grid, directory) as group:
        assert group is not None
        assert [run.training_hash for run in group.members] == hashes
        for run in runs:
            with directory.claimed(run) as mine:
                assert not mine


def test_a_group_that_somebody_works_on_is_not_cleared_away(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that finds nothing to do removes what is left of passes, but not of another worker's."""
    grid, directory, hashes = interrupted_group(folder, tmp_path / "out", monkeypatch)
    homes = list(directory.groups())
    run = next(run for cell in grid.cells for run in cell.trials if run.training_hash == hashes[-1])
    with directory.claimed(run):
        forget_groups(grid, directory)
        assert list(directory.groups()) == homes
    forget_groups(grid, directory)
    assert not list(directory.groups())
