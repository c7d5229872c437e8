"""Workers as jobs of Slurm, submitted by submitit."""

from __future__ import annotations

import importlib
import time
from typing import Any

from trimtab.sweeps.directory import SweepDirectory
from trimtab.sweeps.executors.base import POLL_SECONDS, Executor, ExecutorOptions
from trimtab.sweeps.executors.deaths import Deaths
from trimtab.sweeps.executors.remote import RemoteWorker
from trimtab.sweeps.grid import Grid
from trimtab.sweeps.progress import SweepProgress


class Slurm(Executor):
    """`workers` jobs of one array.

    A job that is preempted or reaches its time limit is submitted again and goes on. One that dies is replaced; a run
    that ends its process twice has failed. When this process is interrupted the jobs go on; started again, it adds
    `workers` more, which share what is left.
    """

    name = "slurm"
    takes = frozenset({"slurm"})

    def __init__(self, options: ExecutorOptions) -> None:
        """Find submitit.

        Raises:
            ModuleNotFoundError: it is not installed.
        """
        super().__init__(options)
        try:
            self._submitit: Any = importlib.import_module("submitit")
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "The executor 'slurm' needs submitit. Run: pip install 'trimtab[slurm]'"
            ) from error

    def run(self, grid: Grid, directory: SweepDirectory, progress: SweepProgress) -> None:
        """Run what the grid needs.

        Raises:
            ChildProcessError: somebody has cancelled a job.
        """
        settings = {"name": "trimtab", **self.options.slurm}
        executor = self._submitit.AutoExecutor(
            folder=directory.path / "slurm" / "%j", cluster=settings.pop("cluster", None)
        )
        if self.options.threads is not None:
            settings.setdefault("cpus_per_task", self.options.threads)
        executor.update_parameters(**settings)
        workers = [Job.of(grid, directory, self.options.threads) for _ in range(self.options.workers)]
        with executor.batch():
            submitted = [executor.submit(worker) for worker in workers]
        jobs = dict(zip(submitted, workers, strict=True))
        deaths = Deaths(grid, directory, self.options.device)
        while jobs:
            time.sleep(POLL_SECONDS)
            for job in [job for job in jobs if job.done()]:
                worker = jobs.pop(job)
                if self._died(job):
                    deaths.count(worker.run, f"state {job.state}")
                    successor = Job.of(grid, directory, self.options.threads)
                    jobs[executor.submit(successor)] = successor
                worker.forget()
            progress.refresh()
        directory.assemble()
        progress.refresh()

    def _died(self, job: Any) -> bool:
        """Whether a job has ended without a result; an error that it raised is raised here."""
        try:
            job.result()
        except self._submitit.core.utils.FailedJobError:
            raise
        except self._submitit.core.utils.UncompletedJobError as error:
            if job.state.startswith("CANCELLED"):
                raise ChildProcessError(f"The job {job.job_id} was cancelled, and the sweep with it.") from error
            return True
        return False


class Job(RemoteWorker):
    """A worker that submitit submits again when Slurm preempts it."""

    def checkpoint(self) -> Any:
        """The same worker again; what the sweep's directory holds is its state."""
        return importlib.import_module("submitit").helpers.DelayedSubmission(self)
