"""Adapters trained together on one base, against the same adapters one by one: examples a second, and memory.

    python benchmarks/together.py      # about 5 minutes on one core

Writes together.json and together.md into benchmarks/results, and docs/benchmarks.md. Every measurement is a fresh
process that trains with trimtab's own trainer on a task's examples; all have the same batches. A measurement that
together.json holds already is not repeated: started again, the benchmark goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import asdict
from typing import Any

from _harness import in_rotation, last_line, machine, model_directory, parser, table, write_results
from _together_worker import Pass

GRID = 25
"""Runs of a grid: five learning rates with five seeds."""
Found = dict[int, list[dict[str, Any]]]
"""By the number of adapters (0: `train`), what each round measured."""


def main() -> None:
    """Measure what is missing, write the table."""
    parsed = parser(__doc__, rounds=2)
    parsed.add_argument("--adapters", type=int, nargs="+", default=[1, 5, 10], help="trained together")
    parsed.add_argument("--method", default="post-block")
    parsed.add_argument("--task", default="listops-small")
    parsed.add_argument("--rows", type=int, default=4, help="examples in a batch of each adapter")
    parsed.add_argument("--steps", type=int, default=6, help="timed in each round")
    parsed.add_argument("--whole", action="store_true", help="compute what the prompts begin with in every row")
    options = parsed.parse_args()
    where = machine(options.threads)
    directory = model_directory(options.model, options.dtype)
    found = _measured_before(options)
    for count in in_rotation([0, *options.adapters], options.rounds):
        if len(found.setdefault(count, [])) < options.rounds:
            one = Pass(
                adapters=count,
                model=directory,
                dtype=options.dtype,
                threads=options.threads,
                method=options.method,
                task=options.task,
                rows=options.rows,
                steps=options.steps,
                share_prefix=not options.whole,
            )
            found[count].append(last_line(f"{count} together", "_together_worker.py", asdict(one)))
            last = found[count][-1]
            print(f"{sum(last['seconds']):6.1f} s  {last['process_mib']:6.0f} MiB  {count} together", file=sys.stderr)
            write_results("together", options, where, found, markdown(options, found))


def _measured_before(options: argparse.Namespace) -> Found:
    """What an interrupted benchmark with these settings has left."""
    path = options.results / "together.json"
    if not path.is_file():
        return {}
    record = json.loads(path.read_text(encoding="utf-8"))
    settings = {key: value for key, value in vars(options).items() if key not in ("results", "docs", "rounds")}
    if {key: value for key, value in record["settings"].items() if key != "rounds"} != settings:
        return {}
    return {int(count): rounds for count, rounds in record["results"].items()}


def markdown(options: argparse.Namespace, found: Found) -> str:
    """The section of the page."""
    alone = _examples_a_second(options, found[0], 1)
    process = statistics.median(each["process_mib"] for each in found[0])
    rows = []
    for count, rounds in sorted(found.items()):
        name = f"{count} together" if count else "alone, by `train`"
        adapters = max(count, 1)
        speed = _examples_a_second(options, rounds, adapters)
        memory = statistics.median(each["process_mib"] for each in rounds)
        cells = [f"{speed:.2f}", f"{speed / alone:.2f}", f"{memory:,.0f}", f"{adapters * process:,.0f}"]
        rows.append([name, *cells, f"{memory / (adapters * process):.2f}", f"{GRID * alone / speed:.1f}"])
    shared = "computed in every row" if options.whole else "computed once an adapter"
    parts = [
        "## Many adapters in one pass\n",
        f"{options.method} on {options.task}, {options.rows} examples a batch and adapter; what the prompts begin with "
        f"is {shared}. Medians of {options.rounds} x {options.steps} steps. Memory is the peak of the whole process, "
        "base and interpreter included, against as many processes with one adapter each. The last column is the time "
        f"of {GRID} runs, in that of one run alone.\n",
        table(["", "examples/s", "ratio", "MiB", "MiB, one by one", "ratio", f"{GRID} runs"], rows),
    ]
    return "\n".join(parts)


def _examples_a_second(options: argparse.Namespace, rounds: list[dict[str, Any]], adapters: int) -> float:
    """Of all adapters together; the steps' batches differ in length, so it is whole rounds that are compared."""
    seconds = statistics.median(statistics.fmean(each["seconds"]) for each in rounds)
    return adapters * float(options.rows) / seconds


if __name__ == "__main__":
    main()
