"""What one fresh process measures: seconds of a training step, and peak memory above the loaded model.

Nothing but torch is imported here, because the worker in pyreft's environment imports this file too, and
trimtab does not install there.
"""

from __future__ import annotations

import ctypes
import gc
import json
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

IGNORED = -100


@dataclass(frozen=True)
class Job:
    """One measurement.

    Args:
        contestant: its name.
        model: what is loaded, a name or a directory.
        dtype: of the base model; adapters are float32 unless the contestant's name says otherwise.
        threads: of torch.
        rows: sequences in a batch.
        tokens: in each.
        supervised: how many of them, the last ones, have a label.
        rank: of the adapter.
        layers: how many layers, the last ones, have an adapter; None: all.
        steps: that are timed, after one that is not.
    """

    contestant: str
    model: str
    dtype: str = "bfloat16"
    threads: int = 1
    rows: int = 8
    tokens: int = 128
    supervised: int = 6
    rank: int = 8
    layers: int | None = None
    steps: int = 3

    def adapted(self, depth: int) -> list[int]:
        """The layers, of `depth`, that have an adapter."""
        return list(range(depth - (self.layers or depth), depth))


@dataclass(frozen=True)
class Measured:
    """What a process reports, as one line of JSON.

    `first_loss` is the one before the first update: every contestant that starts as a no-op has the same.
    """

    seconds: list[float]
    peak_mib: float
    trainable: int
    first_loss: float

    def report(self) -> None:
        """Print it as the last line of standard output, where `_harness.run_fresh` reads it."""
        print(json.dumps(asdict(self)), flush=True)


class PeakMemory:
    """The most resident memory of this process since this object was made, above what was resident then.

    `ru_maxrss` would not do: it never falls, so loading the model would count as training. Linux resets its
    own high-water mark (VmHWM) when 5 is written to /proc/self/clear_refs. Freed memory that malloc still
    holds is given back first: it is not the model's.
    """

    def __init__(self) -> None:
        gc.collect()
        with suppress(AttributeError, OSError):  # glibc has it, other C libraries do not need it
            ctypes.CDLL(None).malloc_trim(0)
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError as error:
            raise OSError("Peak memory needs /proc/self/clear_refs, which only Linux has.") from error
        self._before = _status("VmRSS")

    @property
    def mib(self) -> float:
        """The peak so far, in MiB."""
        return (_status("VmHWM") - self._before) / 1024


def resident_mib() -> float:
    """The most resident memory of this process since the last `PeakMemory` was made, the loaded model included."""
    return _status("VmHWM") / 1024


def _status(field: str) -> int:
    """A line of /proc/self/status, in KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise OSError(f"/proc/self/status has no {field}.")


def settle(model: nn.Module) -> None:
    """Do once, before memory is counted, what every process does at its first step.

    The forward pass reads all weights, which may be pages of the file until then; the update imports what
    AdamW imports late.
    """
    with torch.no_grad():
        model(input_ids=torch.arange(8)[None], use_cache=False)
    weight = nn.Parameter(torch.zeros(8))
    weight.sum().backward()
    torch.optim.AdamW([weight]).step()


def random_batch(vocabulary: int, job: Job) -> tuple[Tensor, Tensor]:
    """Random token ids and labels, (rows, tokens), the same in every process."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(10, vocabulary, (job.rows, job.tokens), generator=generator)
    labels = ids.clone()
    labels[:, : job.tokens - job.supervised] = IGNORED
    return ids, labels


class Trained:
    """The parameters that a contestant trains, with their AdamW."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        """Take those that are not frozen."""
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4)


def step(trained: Trained, loss: Callable[[], Tensor]) -> tuple[float, float]:
    """One step of a plain loop: the loss before it, and its seconds."""
    started = time.perf_counter()
    value = loss()
    value.backward()
    trained.optimizer.step()
    trained.optimizer.zero_grad()
    return value.item(), time.perf_counter() - started


def train(parameters: Iterable[nn.Parameter], loss: Callable[[], Tensor], steps: int, memory: PeakMemory) -> Measured:
    """One step that is not timed, then `steps` that are."""
    trained = Trained(parameters)
    losses, seconds = zip(*(step(trained, loss) for _ in range(steps + 1)), strict=True)
    count = sum(parameter.numel() for parameter in trained.parameters)
    return Measured(list(seconds[1:]), memory.mib, count, losses[0])
