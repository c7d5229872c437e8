"""Every method at its best rate, from a sweep that has been run.

    trimtab sweep recipes/smol-comparison.yaml --together 6           # many hours; resumes
    python benchmarks/comparison.py                                     # the page's tables and figure; seconds

Writes comparison.jsonl (a line for each task and method) into benchmarks/results, the tables of docs/comparison.md, and
docs/assets/comparison.svg. Within a task all answered the same test examples, so that a difference to LoRA is the mean
over these, and its standard error that of the mean. It does not contain what other seeds would change. Cells that are
not finished are left out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _answered_cells import answered_cells, by_rate, difference
from _harness import table
from _measured_parts import fill
from _sweep_options import sweep_options

from trimtab.figures import MUTED, figure, save_svg, series
from trimtab.files import write_text

REFERENCE = "lora"


def main() -> None:
    """Read, compare, draw."""
    options = sweep_options(__doc__, "smol")
    found = answered_cells(options.sweep, "test")
    references = {each.cell.task: each for each in found if each.cell.method == REFERENCE}
    if missing := {each.cell.task for each in found} - references.keys() or (not found and {"any task"}):
        raise SystemExit(f"{REFERENCE!r} is not finished on {', '.join(sorted(missing))} in {options.sweep}.")
    lines = [each.line(references[each.cell.task]) for each in found]
    options.results.mkdir(parents=True, exist_ok=True)
    write_text(options.results / "comparison.jsonl", "".join(json.dumps(each) + "\n" for each in lines))
    fill(options.docs / "comparison.md", "comparison", tables(lines))
    draw(lines, options.docs / "assets" / "comparison.svg")
    print(*(f"{task}\n{text}" for task, text in tables(lines).items()), sep="\n")


def by_task(lines: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The lines of each task."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        found.setdefault(line["task"], []).append(line)
    return found


def tables(lines: Sequence[dict[str, Any]]) -> dict[str, str]:
    """A table for each task."""
    head = ["method", "of the model, %", "validation by rate, %", "test, %", "seeds", f"minus {REFERENCE}"]
    return {task: table(head, map(cells, own)) for task, own in by_task(lines).items()}


def cells(line: dict[str, Any]) -> Sequence[str]:
    """A row: size, validation by rate, test at the chosen one with its error, of each seed, and the difference."""
    return (
        line["method"],
        f"{100 * line['trainable_parameters'] / line['model_parameters']:.3g}",
        by_rate(line),
        f"{100 * line['accuracy']:.1f} ± {100 * line['standard_error']:.1f}",
        ", ".join(f"{100 * accuracy:.1f}" for accuracy in line["accuracies"]),
        difference(line, REFERENCE),
    )


def draw(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """The test accuracies, a panel a task, and the reference as a line."""
    panels = by_task(lines)
    height = 1 + 0.24 * max(map(len, panels.values()))
    with figure("comparison", 5 * len(panels), height, font_size=9.5) as drawing:
        for axes, (task, own) in zip(drawing.subplots(1, len(panels), squeeze=False).flat, panels.items(), strict=True):
            accuracies, errors = ([100 * line[key] for line in own] for key in ("accuracy", "standard_error"))
            axes.errorbar(accuracies, range(len(own)), xerr=errors, **{**series(0), "linestyle": "none"})
            (reference,) = (100 * line["accuracy"] for line in own if line["method"] == REFERENCE)
            axes.axvline(reference, color=MUTED, linewidth=0.9, linestyle=":")
            axes.set_yticks(range(len(own)), [line["method"] for line in own])
            axes.set_ylim(len(own) - 0.5, -0.5)
            axes.set_title(task, loc="left")
            axes.set_xlabel("accuracy on test, % ± standard error")
            axes.grid(axis="x")
        save_svg(drawing, path)


if __name__ == "__main__":
    main()
