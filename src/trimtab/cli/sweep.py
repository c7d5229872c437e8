"""The verb `sweep`."""

from __future__ import annotations

from pathlib import Path

from trimtab.cli.parser import usage_errors
from trimtab.sweeps import ExecutorOptions, Grid, SweepRecipe
from trimtab.sweeps import sweep as run_sweep
from trimtab.sweeps.executors import get_executor


def sweep(
    *,
    recipe: SweepRecipe,
    options: ExecutorOptions,
    out: str | None = None,
    plan: bool = False,
    probe: bool = True,
    retry_failed: bool = False,
    track: str | None = None,
    take_over: list[str] | None = None,
) -> None:
    """Run a grid of model, task, method, learning rate and seed: trimtab sweep RECIPE.

    The best rate of each method is chosen on validation; its seeds are scored on test. The plan is printed first.
    Started again with the same recipe, what is finished is not run again.

    Args:
        recipe: the grid, and what is kept of it.
        options: where the runs are executed.
        out: the directory for results.jsonl and all runs; runs/sweep if not given.
        plan: print the plan and stop.
        probe: run a few steps of each kind of run first, to tell how long the sweep takes.
        retry_failed: run again what has failed, but for trainings that diverged.
        track: log finished runs in this project of trackio.
        take_over: sweeps, or results.jsonl of sweeps, whose finished runs of this grid are not run again.
    """
    with usage_errors():
        Grid.of(recipe)
        get_executor(options)
    run_sweep(
        recipe,
        Path(out or "runs/sweep"),
        options=options,
        plan_only=plan,
        probe=probe,
        retry_failed=retry_failed,
        track=track,
        take_over=take_over or (),
    )
