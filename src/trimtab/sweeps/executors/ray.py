"""Workers as tasks of Ray: on this machine, or on a cluster; several may share a GPU."""

from __future__ import annotations

import importlib
import os
from typing import Any

from trimtab.sweeps.directory import SweepDirectory
from trimtab.sweeps.executors.base import POLL_SECONDS, Executor, ExecutorOptions
from trimtab.sweeps.executors.deaths import Deaths
from trimtab.sweeps.executors.remote import RemoteWorker
from trimtab.sweeps.grid import Grid
from trimtab.sweeps.progress import SweepProgress


class Ray(Executor):
    """`workers` tasks of Ray Core, each with its share of the GPUs.

    All machines see the sweep's directory under the same path. A task whose process or machine dies is replaced, and
    its run goes on from its last checkpoint; a run that ends its process twice has failed.
    """

    name = "ray"
    takes = frozenset({"address", "gpus_per_worker"})

    def __init__(self, options: ExecutorOptions) -> None:
        """Find Ray.

        Raises:
            ModuleNotFoundError: it is not installed.
        """
        super().__init__(options)
        try:
            self._ray: Any = importlib.import_module("ray")
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("The executor 'ray' needs Ray. Run: pip install 'trimtab[ray]'") from error

    def run(self, grid: Grid, directory: SweepDirectory, progress: SweepProgress) -> None:
        """Run what the grid needs."""
        ray, options = self._ray, self.options
        threads = options.threads or 1
        own = not ray.is_initialized()
        if own:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported unless the user wants it
            ray.init(address=options.address, log_to_driver=False)
        try:
            gpus = options.gpus_per_worker
            if gpus is None:  # without a share a task sees no GPU at all
                gpus = 1 if ray.cluster_resources().get("GPU") else 0
            # Ray's own retries would not count what a run does to its process.
            task = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=0)(_work)
            self._watch(task, threads, grid, directory, progress)
        finally:
            if own:
                ray.shutdown()
        directory.assemble()
        progress.refresh()

    def _watch(self, task: Any, threads: int, grid: Grid, directory: SweepDirectory, progress: SweepProgress) -> None:
        """Start the workers, and another one for each that dies, until all have ended well."""
        ray, deaths = self._ray, Deaths(grid, directory, self.options.device)
        died = (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError, ray.exceptions.NodeDiedError)

        def start() -> tuple[Any, RemoteWorker]:
            worker = RemoteWorker.of(grid, directory, threads)
            return task.remote(worker), worker

        waiting = dict(start() for _ in range(self.options.workers))
        while waiting:
            ended, _ = ray.wait(list(waiting), timeout=POLL_SECONDS)
            for each in ended:
                worker = waiting.pop(each)
                try:
                    ray.get(each)
                except died as error:
                    deaths.count(worker.run, type(error).__name__)
                    waiting |= dict([start()])
                worker.forget()
            progress.refresh()


def _work(worker: RemoteWorker) -> None:
    worker()
