"""Where, what and how: the answers of the study, from a sweep that has been run.

    trimtab sweep recipes/smol-study.yaml --together 6    # about four hours on one core; resumes
    python benchmarks/study.py                            # table and figure, from runs/smol-study; seconds

Writes study.jsonl (a line for each cell) into benchmarks/results, the tables of docs/study.md, and
docs/assets/study.svg. Every cell stands at the best of its rates; all answered the same validation examples, so that a
difference is the mean over these examples, and its standard error that of the mean. It does not contain what other
seeds would change. Cells that are not finished are left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _answered_cells import Answered, answered_cells, by_rate, difference
from _harness import table
from _measured_parts import fill
from _sweep_options import sweep_options

from trimtab.figures import MUTED, figure, save_svg, series
from trimtab.files import write_text

REFERENCE = "block"
SPLIT = "validation"
QUESTIONS = {
    "Where: a low-rank shift": ("block", "mlp", "mlp_input", "attention"),
    "Where: a vector": ("block vector", "mlp vector", "mlp_input vector", "attention vector"),
    "Which tokens": ("block", "block not the first", "block last", "block 7 + 7"),
    "What": (
        "block",
        "block + bias",
        "block normalized",
        "block normalized + bias",
        "block silu",
        "block vector",
        "block vector not the first",
        "block loreft",
    ),
    "From ReFT to post-block": (
        "mlp loreft 7 + 7",
        "mlp loreft last",
        "mlp loreft",
        "block loreft 7 + 7",
        "block loreft",
        "block 7 + 7",
        "block",
    ),
    "How: start and schedule": (
        "block",
        "block start 1e-3",
        "block start in W_up",
        "block + bias",
        "block + bias cosine",
        "block + bias rates",
        "block normalized + bias",
        "block normalized + bias cosine",
        "block normalized + bias gradient",
        "post-block-plus",
        "lora",
    ),
}


def main() -> None:
    """Read, compare, draw."""
    options = sweep_options(__doc__, "smol-study")
    found = {each.cell.method: each for each in answered_cells(options.sweep, SPLIT)}
    if REFERENCE not in found:
        raise SystemExit(f"The cell {REFERENCE!r} is not finished in {options.sweep}: run the sweep first.")
    lines = [each.line(found[REFERENCE]) for each in found.values()]
    options.results.mkdir(parents=True, exist_ok=True)
    write_text(options.results / "study.jsonl", "".join(json.dumps(each) + "\n" for each in lines))
    fill(options.docs / "study.md", "study", tables(lines))
    draw(found, options.docs / "assets" / "study.svg")
    print(*(f"{question}\n{text}" for question, text in tables(lines).items()), sep="\n")


def tables(lines: Sequence[dict[str, Any]]) -> dict[str, str]:
    """A table for each question that has finished cells."""
    found = {each["method"]: each for each in lines}
    head = ["cell", "parameters", "by rate, %", "best, %", "seeds", f"minus {REFERENCE}"]
    made = {question: [cells(found[name]) for name in names if name in found] for question, names in QUESTIONS.items()}
    return {question: table(head, rows) for question, rows in made.items() if rows}


def cells(one: dict[str, Any]) -> Sequence[str]:
    """A row: accuracy by rate, at the best one, of each seed there, and the difference to the reference."""
    return (
        one["method"],
        f"{one['trainable_parameters']:,}",
        by_rate(one),
        f"**{100 * one['accuracy']:.1f}**",
        ", ".join(f"{100 * accuracy:.1f}" for accuracy in one["accuracies"]),
        difference(one, REFERENCE),
    )


def draw(found: dict[str, Answered], path: Path) -> None:
    """The accuracies by question, a panel each, and the reference as a line."""
    panels = {question: [name for name in names if name in found] for question, names in QUESTIONS.items()}
    panels = {question: names for question, names in panels.items() if names}
    rows = math.ceil(len(panels) / 2)
    with figure("study", 10, 2.9 * rows, font_size=9.5) as drawing:
        places = drawing.subplots(rows, 2, sharex=True, squeeze=False)
        for axes in places.flat[len(panels) :]:
            axes.set_visible(False)
        for axes, (question, names) in zip(places.flat, panels.items(), strict=False):
            values = [100 * (found[name].cell.accuracy or 0) for name in names]
            errors = [100 * (found[name].cell.standard_error or 0) for name in names]
            points = {**series(0), "linestyle": "none"}
            axes.errorbar(values, range(len(names)), xerr=errors, **points)
            axes.axvline(100 * (found[REFERENCE].cell.accuracy or 0), color=MUTED, linewidth=0.9, linestyle=":")
            axes.set_yticks(range(len(names)), names)
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.set_title(question, loc="left")
            axes.grid(axis="x")
        for axes in places[-1]:
            axes.set_xlabel("accuracy on validation, % ± standard error")
        save_svg(drawing, path)


if __name__ == "__main__":
    main()
