"""What the benchmarks share: options, fresh processes in rotation, targets, and what they write."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from _measure import Job, Measured
from report import write_page

from trimtab.files import write_text
from trimtab.models import EMBEDDED_MODEL, load_model
from trimtab.results import Environment

HERE = Path(__file__).parent
PYREFT_PYTHON = HERE.parent / ".venv-pyreft" / "bin" / "python"
QUIET = 0.3
"""Load average, per core, up to which other work does not disturb."""

Key = TypeVar("Key")


def parser(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", default=EMBEDDED_MODEL, help="a name or a directory")
    made.add_argument("--dtype", default="bfloat16", help="of the base model; adapters are float32")
    made.add_argument("--threads", type=int, default=torch.get_num_threads())
    made.add_argument("--rounds", type=int, default=rounds, help="how often everything is measured")
    made.add_argument("--results", type=Path, default=HERE / "results", help="for JSON and Markdown")
    made.add_argument("--docs", type=Path, default=HERE.parent / "docs", help="for the page and its figures")
    return made


def add_training_options(made: argparse.ArgumentParser, steps: int) -> None:
    """The options of the benchmarks that train."""
    made.add_argument("--steps", type=int, default=steps, help="timed in each round")
    made.add_argument("--rows", type=int, default=8, help="sequences in a batch")
    made.add_argument("--tokens", type=int, default=128, help="in a sequence")
    made.add_argument("--supervised", type=int, default=6, help="tokens with a label, the last ones")


def job(options: argparse.Namespace, contestant: str, directory: str, **changes: Any) -> Job:
    """A measurement of `contestant` with the common options, some of them changed."""
    names = ("dtype", "threads", "rows", "tokens", "supervised", "steps")
    shared = {name: getattr(options, name) for name in names}
    return Job(**{"contestant": contestant, "model": directory, **shared, **changes})


def model_directory(name: str, dtype: str) -> str:
    """The directory of a model; the embedded one is converted first, outside of every measurement."""
    model, _ = load_model(name, dtype=dtype, device="cpu")
    return str(model.config.name_or_path)


def run_fresh(job: Job, worker: str = "_worker.py", python: Path | str = sys.executable) -> Measured:
    """Measure in a process of its own: peak memory is a property of a process."""
    return Measured(**last_line(job.contestant, worker, asdict(job), python))


def run_paired(jobs: Sequence[Job]) -> dict[str, list[float]]:
    """Seconds of the contestants' steps, one after another in one process."""
    found: dict[str, list[float]] = last_line("side by side", "_paired_worker.py", [asdict(job) for job in jobs])
    return found


def last_line(name: str, worker: str, argument: Any, python: Path | str = sys.executable) -> Any:
    """What a worker, started with `argument` as JSON in a fresh process, says at its end.

    Raises:
        RuntimeError: the process failed; says what it wrote last.
    """
    command = [str(python), str(HERE / worker), json.dumps(argument)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name!r} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def in_rotation(keys: Sequence[Key], rounds: int) -> Iterator[Key]:
    """Every key once a round, every other round backwards: a machine that slows down hits all alike."""
    for number in range(rounds):
        yield from reversed(keys) if number % 2 else keys


@dataclass(frozen=True)
class Summary:
    """All rounds of one contestant: the median over all timed steps, and that of each round."""

    seconds: float
    rounds: list[float]
    peak_mib: float
    trainable: int
    first_loss: float
    runs: list[Measured]

    @classmethod
    def of(cls, runs: list[Measured]) -> Summary:
        """From the rounds."""
        return cls(
            seconds=statistics.median(second for run in runs for second in run.seconds),
            rounds=[statistics.median(run.seconds) for run in runs],
            peak_mib=statistics.median(run.peak_mib for run in runs),
            trainable=runs[0].trainable,
            first_loss=runs[0].first_loss,
            runs=runs,
        )


@dataclass(frozen=True)
class Target:
    """A promise about a ratio of two measurements; `sign` is "<=" or ">="."""

    what: str
    sign: str
    bound: float

    def row(self, ratio: float, spread: str = "") -> list[str]:
        """What was promised, what was measured, how much it varied, and whether it holds."""
        met = ratio <= self.bound if self.sign == "<=" else ratio >= self.bound
        sign = {"<=": "≤", ">=": "≥"}[self.sign]
        return [f"{self.what} {sign} {self.bound:.2f}", f"{ratio:.3f}", spread, "met" if met else "**missed**"]

    def paired_row(self, one: Sequence[float], other: Sequence[float]) -> list[str]:
        """The same of the median over rounds of what was measured in turn, with the quartiles of the rounds."""
        return self.rounds_row([mine / theirs for mine, theirs in zip(one, other, strict=True)])

    def rounds_row(self, ratios: Sequence[float]) -> list[str]:
        """The same of the median of the rounds' ratios, with their quartiles."""
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return self.row(middle, f"{low:.2f} to {high:.2f}")


def target_table(rows: Sequence[Sequence[str]]) -> str:
    """The rows of targets as a table; nothing if there are none."""
    return table(["target", "measured", "quartiles", ""], rows) if rows else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are aligned to the right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, rule, *rows))


def machine(threads: int) -> dict[str, Any]:
    """The processor, and how busy it was before the benchmark began; a busy one is warned of."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    cores, load = os.cpu_count() or 1, os.getloadavg()[0]
    if load > QUIET * cores:
        print(f"The load average is {load:.1f}: other work disturbs the times.", file=sys.stderr)
    name = names[0] if names else "unknown processor"
    return {"processor": name, "cores": cores, "threads": threads, "load_average": load}


def write_results(name: str, options: argparse.Namespace, where: Mapping[str, Any], results: Any, text: str) -> None:
    """Write NAME.json and NAME.md among the results, and the page of the documentation that joins them."""
    options.results.mkdir(parents=True, exist_ok=True)
    record = {
        "machine": dict(where),
        "environment": asdict(Environment.collect("cpu")),
        "settings": {key: value for key, value in vars(options).items() if key not in ("results", "docs")},
        "results": results,
    }
    write_text(options.results / f"{name}.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    write_text(options.results / f"{name}.md", text)
    write_page(options.results, options.docs)
