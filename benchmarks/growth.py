"""How time and memory of a training step grow, for post-block steering and LoRA.

    python benchmarks/growth.py      # about 4 minutes on two cores

With the adapter's rank, with the number of adapted layers (the last ones, so that the backward pass ends at
the first of them), with the length of the sequences and with their number; all else as in step.py. Writes
growth.json and growth.md into benchmarks/results, docs/assets/growth.svg, and docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict

from _contestants import LORA, POST_BLOCK
from _harness import (
    Summary,
    add_training_options,
    in_rotation,
    job,
    machine,
    model_directory,
    parser,
    run_fresh,
    table,
    write_results,
)
from _measure import Job, Measured
from matplotlib.axes import Axes

from trimtab.figures import MARKERS, SERIES, svg_text
from trimtab.figures import figure as styled_figure
from trimtab.files import write_text

CONTESTANTS = {"post-block": POST_BLOCK, "LoRA": LORA}
LABELS = {
    "rank": "rank",
    "layers": "adapted layers",
    "tokens": "tokens a sequence",
    "rows": "sequences a batch",
}
QUANTITIES = {"seconds": "seconds a step", "peak_mib": "memory, MiB"}

Sweeps = dict[str, dict[str, list[Job]]]
"""By what is varied (a field of Job), by contestant: the points."""
Found = dict[Job, Summary]


def main() -> None:
    """Measure every point once a round, write table and figure."""
    parsed = parser(__doc__, rounds=1)
    add_training_options(parsed, steps=2)
    parsed.add_argument("--ranks", type=int, nargs="+", default=[1, 8, 64])
    parsed.add_argument("--layers", type=int, nargs="+", default=[10, 20, 30], help="the last: all else")
    parsed.add_argument("--lengths", type=int, nargs="+", default=[64, 128, 256])
    parsed.add_argument("--batches", type=int, nargs="+", default=[4, 8, 16])
    options = parsed.parse_args()
    where = machine(options.threads)
    sweeps = _sweeps(options, model_directory(options.model, options.dtype))
    points = list(dict.fromkeys(point for lines in sweeps.values() for line in lines.values() for point in line))
    runs: dict[Job, list[Measured]] = {point: [] for point in points}
    for point in in_rotation(points, options.rounds):
        measured = run_fresh(point)
        runs[point].append(measured)
        shape = f"rank {point.rank}, {point.layers} layers, {point.rows} x {point.tokens}"
        seconds = Summary.of([measured]).seconds
        print(f"{seconds:7.3f} s  {measured.peak_mib:6.0f} MiB  {shape}  {point.contestant}", file=sys.stderr)
    found = {point: Summary.of(rounds) for point, rounds in runs.items()}

    assets = options.docs / "assets"
    assets.mkdir(parents=True, exist_ok=True)
    write_text(assets / "growth.svg", figure(sweeps, found))
    results = [{**asdict(point), "model": options.model, **asdict(one)} for point, one in found.items()]
    write_results("growth", options, where, results, markdown(options, sweeps, found))


def _sweeps(options: argparse.Namespace, directory: str) -> Sweeps:
    """Every field varied alone, around one point that all sweeps share."""
    values = {
        "rank": options.ranks,
        "layers": options.layers,
        "tokens": options.lengths,
        "rows": options.batches,
    }
    centre = {"rank": 8, "layers": options.layers[-1]}  # tokens and rows: the common options
    return {
        field: {
            label: [job(options, name, directory, **{**centre, field: value}) for value in values[field]]
            for label, name in CONTESTANTS.items()
        }
        for field in values
    }


def markdown(options: argparse.Namespace, sweeps: Sweeps, found: Found) -> str:
    """The section of the page."""
    rows = []
    for field, lines in sweeps.items():
        for points in zip(*lines.values(), strict=True):
            summaries = [found[point] for point in points]
            cells = [f"{summary.seconds:.3f}" for summary in summaries]
            cells += [f"{summary.peak_mib:,.0f}" for summary in summaries]
            rows.append([f"{LABELS[field]}: {getattr(points[0], field)}", *cells])
    return (
        "## How a step grows\n\n"
        f"Median seconds of {options.rounds} x {options.steps} steps and peak memory above the loaded model, "
        f"with {options.supervised} tokens a sequence supervised. Adapted layers are the last ones: the "
        "backward pass ends at the first of them.\n\n"
        "![Seconds and memory of a training step over rank, adapted layers, tokens and sequences, for "
        "post-block steering and LoRA; the table has the numbers](assets/growth.svg)\n\n"
    ) + table(["", *(f"{label}, {unit}" for unit in ("s", "MiB") for label in CONTESTANTS)], rows)


def figure(sweeps: Sweeps, found: Found) -> str:
    """Two rows (time, memory) of one panel a sweep, as SVG."""
    with styled_figure("growth", 9, 4.4, font_size=9.5) as drawing:
        panels = drawing.subplots(len(QUANTITIES), len(sweeps), sharex="col", sharey="row", squeeze=False)
        for row, (quantity, unit) in enumerate(QUANTITIES.items()):
            for column, field in enumerate(sweeps):
                _panel(panels[row, column], field, quantity, sweeps[field], found)
            panels[row, 0].set_ylabel(unit)
            panels[row, 0].set_ylim(bottom=0)
        for column, field in enumerate(sweeps):
            panels[-1, column].set_xlabel(LABELS[field])
        handles, labels = panels[0, 0].get_legend_handles_labels()
        drawing.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
        return svg_text(drawing)


def _panel(axes: Axes, field: str, quantity: str, lines: dict[str, list[Job]], found: Found) -> None:
    for index, (label, points) in enumerate(lines.items()):
        values = [getattr(point, field) for point in points]
        axes.plot(
            values,
            [getattr(found[point], quantity) for point in points],
            color=SERIES[index],
            marker=MARKERS[index],
            linewidth=1.8,
            markersize=5,
            label=label,
        )
    if field == "rank":
        axes.set_xscale("log", base=2)
    axes.set_xticks(values, [str(value) for value in values])
    axes.minorticks_off()
    axes.grid(axis="y")


if __name__ == "__main__":
    main()
