"""A fresh process that trains some adapters together; `together.py` starts it with its settings as JSON."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _measure import PeakMemory, resident_mib, settle
from transformers import TrainerCallback

from trimtab.methods import get_method
from trimtab.models import load_model
from trimtab.training import Job, TrainingSettings, train, train_together


@dataclass(frozen=True)
class Pass:
    """One measurement.

    Args:
        adapters: how many are trained together; 0: one alone, by `train`.
        model: a name or a directory.
        dtype: of the base.
        threads: of torch.
        method: the adapters', each at another learning rate.
        task: what is trained on.
        rows: examples in a batch of one adapter.
        steps: that are timed, after one that is not.
        share_prefix: as in `TrainingSettings`.
    """

    adapters: int
    model: str
    dtype: str
    threads: int
    method: str
    task: str
    rows: int
    steps: int
    share_prefix: bool


class StepTimes(TrainerCallback):
    """Seconds of each step."""

    def __init__(self) -> None:
        """Begin with none."""
        self.seconds: list[float] = []
        self._started = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop it."""
        self.seconds.append(time.perf_counter() - self._started)


def measure(one: Pass) -> dict[str, Any]:
    """Seconds of each step but the first, peak memory above the base, and that of the whole process, in MiB."""
    torch.set_num_threads(one.threads)
    base, tokenizer = load_model(one.model, dtype=one.dtype, device="cpu")
    settle(base)
    settings = TrainingSettings(
        max_steps=one.steps + 1,
        batch_size=one.rows,
        examples=one.rows * (one.steps + 1),
        share_prefix=one.share_prefix,
        checkpoint_every=one.steps + 2,
    )
    times = StepTimes()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        common: Any = {"tokenizer": tokenizer, "progress": False, "callbacks": [times]}
        memory = PeakMemory()
        if one.adapters:
            rates = [1e-3 * (1 + index) / one.adapters for index in range(one.adapters)]
            chosen = [get_method(one.method, learning_rate=rate) for rate in rates]
            jobs = [Job(each, settings, out / str(index)) for index, each in enumerate(chosen)]
            train_together(base, jobs, one.task, out / "group", **common)
        else:
            train(base, one.method, one.task, out / "run", settings=settings, **common)
    return {"seconds": times.seconds[1:], "above_mib": memory.mib, "process_mib": resident_mib()}


if __name__ == "__main__":
    print(json.dumps(measure(Pass(**json.loads(sys.argv[1])))), flush=True)
