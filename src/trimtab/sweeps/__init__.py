"""A grid of runs: planned, run on one machine or many, resumed, and put together in one file of results."""

from trimtab.sweeps.configuration import Configuration
from trimtab.sweeps.directory import SweepDirectory, load_cells, load_failures, load_results
from trimtab.sweeps.executors import ExecutorOptions
from trimtab.sweeps.grid import Cell, Grid
from trimtab.sweeps.recipe import SweepRecipe
from trimtab.sweeps.run import run_one
from trimtab.sweeps.sweep import UnfinishedSweepError, sweep

__all__ = [
    "Cell",
    "Configuration",
    "ExecutorOptions",
    "Grid",
    "SweepDirectory",
    "SweepRecipe",
    "UnfinishedSweepError",
    "load_cells",
    "load_failures",
    "load_results",
    "run_one",
    "sweep",
]
