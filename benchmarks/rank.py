"""Rank, nonlinearity and model size, from a sweep that has been run.

    trimtab sweep recipes/smol-rank.yaml --together 6    # 40 runs, about 45 minutes on one core
    python benchmarks/rank.py                            # the figure, from runs/smol-rank; seconds

Writes rank.json and rank.md into benchmarks/results and docs/assets/rank-curves.svg (the paper's figure 5, left).
"""

from __future__ import annotations

import json
from dataclasses import asdict

from _harness import table
from _sweep_options import sweep_options

from trimtab.analysis.rank_curves import RankCurves, rank_curves
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
    write_text(options.results / "rank.md", markdown(found))
    save_svg(found.figure(), options.docs / "assets" / "rank-curves.svg")
    print(found.caption, found.summary, sep="\n")


def markdown(found: RankCurves) -> str:
    """A row for each model, kind of map and rank."""
    rows = []
    for curve in found.curves:
        for point in curve.points:
            spread = "" if point.standard_deviation is None else f" ± {100 * point.standard_deviation:.1f}"
            score = f"{100 * point.accuracy:.1f}{spread}"
            what = [curve.model, curve.task, curve.activation, f"{point.rank}", f"{point.learning_rate:g}", score]
            rows.append([*what, f"{100 * point.standard_error:.1f}", f"{point.seeds} x {point.n}"])
    head = ["model", "task", "inside", "rank", "rate", "accuracy, % ± deviation of seeds", "standard error", "n"]
    return table(head, rows)


if __name__ == "__main__":
    main()
