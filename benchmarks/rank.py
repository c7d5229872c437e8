"""Rank, nonlinearity and model size, from a sweep that has been run.

    trimtab sweep recipes/smol-rank.yaml --together 6    # 40 runs, about 45 minutes on one core
    python benchmarks/rank.py                            # the figure, from runs/smol-rank; seconds

Writes rank.json into benchmarks/results and docs/assets/rank-curves.svg (the paper's figure 5, left).
"""

from __future__ import annotations

import json
from dataclasses import asdict

from _sweep_options import sweep_options

from trimtab.analysis.rank_curves import rank_curves
from trimtab.figures import save_svg
from trimtab.files import write_text
from trimtab.results import Environment
from trimtab.sweeps import load_cells, load_results


def main() -> None:
    """Read, draw, print."""
    options = sweep_options(__doc__, "smol-rank")
    runs = load_results(options.sweep)
    found = rank_curves(load_cells(options.sweep), runs)
    environment = {**asdict(runs[0].environment), "command": Environment.collect("cpu").command}
    record = {"environment": environment, **found.to_dict(), "summary": found.summary}
    options.results.mkdir(parents=True, exist_ok=True)
    write_text(options.results / "rank.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    save_svg(found.figure(), options.docs / "assets" / "rank-curves.svg")
    print(found.caption, found.summary, sep="\n")


if __name__ == "__main__":
    main()
