"""Kills sweeps with SIGKILL, at random moments, until they are through. A program of its own, because it forks.

    python tests/sweeps/killing.py FOLDER KILLS SEED

Prints one JSON object: how often a sweep was killed, which files changed that never may, and what was run how often.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from sweeps.small_sweep import numbers, small_recipe
from trimtab.sweeps import load_results, run_one, sweep, worker

LONGEST_LIFE = 1.5  # seconds: about two runs


def start(folder: Path, out: Path, log: Path, together: int) -> int:
    """Fork a process that runs the sweep; its number."""
    child = os.fork()
    if child:
        return child
    os.dup2(os.open(f"{log}.err", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)

    def logged(run: Any, *others: Any) -> Any:
        with log.open("a") as file:
            file.write(f"{run.hash}\n")
        return run_one(run, *others)

    worker.run_one = logged
    try:
        sweep(small_recipe(folder, together=together), out, probe=False, console=Console(file=io.StringIO()))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def ended(child: int, log: Path) -> bool:
    """Whether a process has ended by itself, well."""
    found, status = os.waitpid(child, os.WNOHANG)
    if found and os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"a sweep failed:\n{Path(f'{log}.err').read_text()[-3000:]}")
    return bool(found)


def kill(child: int) -> None:
    """SIGKILL: the process can do nothing about it."""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def fingerprints(out: Path) -> dict[str, str]:
    """The content of what is written once: records, and results of trainings."""
    paths = [*out.glob("runs/*/*-*.json"), *out.glob("runs/*/training/result.json")]
    found = {}
    for path in paths:
        content = path.read_bytes()
        json.loads(content)
        found[str(path.relative_to(out))] = hashlib.sha256(content).hexdigest()
    return found


def main() -> None:
    """One sweep killed again and again; then two at once, one of them killed, run by run and in groups of runs."""
    folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    moment = random.Random(seed)
    small_recipe(folder)
    reports = {}
    for name, others, together in (("alone", 0, 1), ("two", 1, 1), ("together", 1, 4)):
        out, log = folder / name, folder / f"{name}.log"
        log.touch()
        seen: dict[str, str] = {}
        changed: list[str] = []
        killed = 0
        steady = [start(folder, out, log, together) for _ in range(others)]
        while True:
            child = start(folder, out, log, together)
            if killed == kills:
                while not ended(child, log):
                    time.sleep(0.05)
            else:
                time.sleep(moment.uniform(0, LONGEST_LIFE))
            if killed == kills or ended(child, log):
                break
            kill(child)
            killed += 1
            now = fingerprints(out)
            changed += [path for path, content in seen.items() if now.get(path) != content]
            seen |= now
        for child in steady:
            while not ended(child, log):
                time.sleep(0.05)
        last = fingerprints(out)
        changed += [path for path, content in seen.items() if last.get(path) != content]
        lines = log.read_text().split()
        reports[name] = {
            "killed": killed,
            "changed": changed,
            "started": {run: lines.count(run) for run in lines},
            "numbers": numbers(load_results(out)),
            "leftovers": [
                str(path.relative_to(out))
                for pattern in ("runs/*/training/checkpoints", "groups/*")
                for path in out.glob(pattern)
            ],
        }
    print(json.dumps(reports))


if __name__ == "__main__":
    main()
