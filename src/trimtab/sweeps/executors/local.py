"""Runs on this machine: in this process, or in several that share them."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import Any

import torch

from trimtab.sweeps.configuration import HASH_DIGITS, Configuration
from trimtab.sweeps.costs import Cost, Costs, Kind
from trimtab.sweeps.directory import SweepDirectory
from trimtab.sweeps.executors.base import POLL_SECONDS, Executor, probe_here, run_worker, set_up_process, use_threads
from trimtab.sweeps.executors.deaths import Deaths
from trimtab.sweeps.grid import Grid
from trimtab.sweeps.groups import Group
from trimtab.sweeps.progress import SweepProgress
from trimtab.sweeps.recipe import SweepRecipe
from trimtab.sweeps.run import BaseModels
from trimtab.sweeps.worker import work

logger = logging.getLogger(__name__)


class Local(Executor):
    """One process, or `workers` of them.

    A worker that is killed is replaced, and its run goes on from its last checkpoint; a run that ends its process twice
    has failed. Workers end with this process, however it ends.
    """

    name = "local"
    takes = frozenset({"device"})

    def probe(self, grid: Grid, directory: SweepDirectory, costs: Costs) -> bool:
        """In this process if it is the worker; else in another, so that this one needs no memory for a model."""
        options = self.options
        if options.workers == 1:
            use_threads(options.threads)
            return probe_here(grid, directory, costs, BaseModels(options.device))
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            asked = pool.submit(_probe, grid.recipe, str(directory.path), options.device, self._threads())
            try:
                costs.probed |= asked.result()
            except BrokenProcessPool:
                logger.warning("No estimate of the time: the process of the probe died, maybe because memory ran out.")
                return False
        return True

    def run(self, grid: Grid, directory: SweepDirectory, progress: SweepProgress) -> None:
        """Run what the grid needs."""
        if self.options.workers > 1:
            self._run_processes(grid, directory, progress)
            return
        use_threads(self.options.threads)
        work(grid, directory, BaseModels(self.options.device), progress.announce, POLL_SECONDS)

    def _run_processes(self, grid: Grid, directory: SweepDirectory, progress: SweepProgress) -> None:
        workers = [self._start(grid, directory, index) for index in range(self.options.workers)]
        deaths = Deaths(grid, directory, self.options.device)
        try:
            while any(each.process.exitcode != 0 for each in workers):
                wait([each.process.sentinel for each in workers if each.process.is_alive()], timeout=POLL_SECONDS)
                for index, each in enumerate(workers):
                    if each.process.exitcode:  # neither alive (None) nor ended well (0)
                        deaths.count(each.run, each.reason)
                        workers[index] = self._start(grid, directory, index)
                progress.refresh()
        finally:
            for each in workers:
                each.process.terminate()
                each.process.join()
        directory.assemble()
        progress.refresh()

    def _start(self, grid: Grid, directory: SweepDirectory, index: int) -> _Worker:
        device = self.options.device
        if device == "auto" and torch.cuda.device_count() > 1:
            device = f"cuda:{index % torch.cuda.device_count()}"
        context = multiprocessing.get_context("spawn")
        current = context.Array("c", HASH_DIGITS + 1)
        arguments = (grid.recipe, str(directory.path), device, self._threads(), current)
        process = context.Process(target=_work, args=arguments, daemon=True)
        process.start()
        return _Worker(process, current)

    def _threads(self) -> int:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return self.options.threads or max(1, cores // self.options.workers)


@dataclass(frozen=True)
class _Worker:
    """A worker's process, and the memory in which it says what it runs."""

    process: SpawnProcess
    current: Any

    @property
    def run(self) -> str:
        """The hash of the run that it works on, or worked on when it ended; empty: none."""
        return str(self.current.value.decode())

    @property
    def reason(self) -> str:
        """How it ended."""
        code = self.process.exitcode or 0
        if code >= 0:
            return f"exit code {code}"
        memory = ", most likely because memory ran out" if -code == signal.SIGKILL else ""
        return f"signal {signal.Signals(-code).name}{memory}"


def _work(recipe: SweepRecipe, path: str, device: str, threads: int, current: Any) -> None:
    """A worker that says what it runs and does not outlive its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def announce(run: Configuration | Group | None) -> None:
        current.value = b"" if run is None else run.hash.encode()

    run_worker(recipe, path, device, threads, announce)


def _leave(number: int, _: object) -> None:
    sys.exit(128 + number)  # an exit, not a death: what is being trained is told that it was interrupted


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)  # the claims are freed; what was being written has another name


def _probe(recipe: SweepRecipe, path: str, device: str, threads: int) -> dict[Kind, Cost]:
    set_up_process(threads)
    grid, directory, costs = Grid.of(recipe), SweepDirectory(path), Costs()
    probe_here(grid, directory, costs, BaseModels(device))
    return costs.probed
