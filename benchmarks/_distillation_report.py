"""Tables and figure of benchmarks/distillation.py, from its JSON alone."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trimtab.figures import BASE_COLOUR, MUTED, TEXT, series
from trimtab.figures import figure as styled_figure
from trimtab.results import Accuracy

STUDENTS = {
    "distilled": "distilled",
    "distilled, trained": "distilled, then trained",
    "scratch, as many examples": "trained on as many examples",
    "scratch, as long": "trained for as long",
}

Cell = dict[str, Any]


def tasks_of(content: dict[str, Any]) -> list[str]:
    """The tasks that were measured to the end."""
    names = dict.fromkeys(key.partition(": ")[0] for key in content["cells"])
    return [name for name in names if f"{name}: vector scratch, as long" in content["cells"]]


def cells_of(content: dict[str, Any], task: str) -> dict[str, Cell]:
    """The cells of a task, by name."""
    prefix = f"{task}: "
    return {key.removeprefix(prefix): cell for key, cell in content["cells"].items() if key.startswith(prefix)}


def variants_of(cells: dict[str, Cell]) -> dict[str, Cell]:
    """The ways to fit that were compared on a task, by name."""
    prefix = "variant "
    return {name.removeprefix(prefix): cell for name, cell in cells.items() if name.startswith(prefix)}


def students_of(cells: dict[str, Cell]) -> list[str]:
    """ "vector", "rank 1", ... in the order of their parameters."""
    names = [name.removesuffix(" distilled") for name in cells if name.endswith(" distilled")]
    return sorted(names, key=lambda name: int(cells[f"{name} distilled"]["parameters"]))


def recovered(cell: Cell, base: Cell, tuned: Cell) -> float:
    """The share of the tuned model's gain in accuracy."""
    rates = [each["correct"] / each["n"] for each in (cell, base, tuned)]
    return (rates[0] - rates[1]) / (rates[2] - rates[1]) if rates[2] != rates[1] else float("nan")


def markdown(content: dict[str, Any]) -> str:
    """Two tables a task: the ways to fit, and what the ranks recover."""
    parts = []
    for task in tasks_of(content):
        cells, settings = cells_of(content, task), content["settings"][task]
        base, tuned = cells["base"], cells["tuned"]
        parts.append(
            f"### {task}\n\nTeacher: LoRA, trained on {settings['teacher_examples']:,} examples, on test "
            f"{_accuracy(tuned)}; base {_accuracy(base)}. {len(cells['texts']['texts']):,} prompts."
        )
        variants = variants_of(cells)
        if variants:
            rows = [f"| base | {_kl(next(iter(variants.values()))['kl_before'])} | | |"]
            rows += [
                f"| {name} | {_kl(cell['kl'])} | {_accuracy(cell)} | {cell['seconds']:.0f} |"
                for name, cell in variants.items()
            ]
            parts.append(
                "Ways to fit at rank 8, on held-out prompts and validation examples:\n\n"
                "| fit | KL, answers | KL, everywhere | accuracy | seconds |\n| --- | --- | --- | --- | --- |\n"
                + "\n".join(rows)
            )
        head = ["adapter", "parameters", *STUDENTS.values(), "of the gain, distilled", "distilled, then trained"]
        head += ["KL, base", "KL, distilled"]
        table = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
        for name in students_of(cells):
            found = [cells[f"{name} {each}"] for each in STUDENTS]
            shares = [f"{100 * recovered(each, base, tuned):.0f} %" for each in found[:2]]
            divergences = [_nats(found[0][key], "answers") for key in ("kl_before", "kl")]
            row = [name, f"{found[0]['parameters']:,}", *map(_accuracy, found), *shares, *divergences]
            table.append(f"| {' | '.join(row)} |")
        parts.append(
            "Accuracy on test, and KL to the tuned model where held-out answers are predicted:\n\n" + "\n".join(table)
        )
    return "\n\n".join(parts) + "\n"


def figure(content: dict[str, Any]) -> Figure:
    """The KL of each way to fit, for every task on which they were compared; below, the accuracies, a panel a task."""
    cells = {task: cells_of(content, task) for task in tasks_of(content)}
    compared = [task for task in cells if variants_of(cells[task])]
    rows = [[f"fits {task}"] * len(cells) for task in compared] + [list(cells)]
    with styled_figure("distillation", max(7, 5 * len(cells)), 4.2 * len(rows)) as drawing:
        panels = drawing.subplot_mosaic(rows)
        for task in compared:
            _fits(panels[f"fits {task}"], variants_of(cells[task]))
            panels[f"fits {task}"].set_title(f"{task}, rank 8", loc="left")
        for task, found in cells.items():
            _accuracies(panels[task], found)
            panels[task].set_title(task, loc="left")
        handles, labels = panels[next(iter(cells))].get_legend_handles_labels()
        drawing.legend(handles, labels, loc="outside lower center", ncols=2)
        return drawing


def _fits(axes: Axes, variants: dict[str, Cell]) -> None:
    for row, cell in enumerate(variants.values()):
        value = cell["kl"]["answers"]
        axes.plot(value, row, **series(1))  # points: on a logarithmic axis the length of a bar says nothing
        axes.annotate(f"{value:.3g}", (value, row), xytext=(8, 0), textcoords="offset points", va="center")
    before = next(iter(variants.values()))["kl_before"]["answers"]
    axes.axvline(before, color=BASE_COLOUR, linestyle=":", linewidth=1.6)
    axes.annotate("base", (before, -0.7), color=MUTED, ha="center", annotation_clip=False)
    axes.set_yticks(range(len(variants)), list(variants))
    axes.tick_params(axis="y", length=0, labelcolor=TEXT)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.grid()
    axes.set_xlabel("KL to the tuned model, nats an answer token")


def _accuracies(axes: Axes, cells: dict[str, Cell]) -> None:
    names = students_of(cells)
    for index, (key, label) in enumerate(STUDENTS.items()):
        found = [Accuracy(**_counts(cells[f"{name} {key}"])) for name in names]
        places = [place + 0.06 * (index - 1.5) for place in range(len(names))]
        axes.errorbar(
            places,
            [100 * each.value for each in found],
            yerr=[100 * each.standard_error for each in found],
            **series(index),
            label=label,
        )
    for name in ("base", "tuned"):
        height = 100 * Accuracy(**_counts(cells[name])).value
        axes.axhline(height, color=BASE_COLOUR, linestyle=":", linewidth=1.6)
        axes.annotate(
            name,
            (1, height),
            xycoords=("axes fraction", "data"),
            xytext=(-4, 3),
            textcoords="offset points",
            ha="right",
            color=MUTED,
        )
    axes.set_xticks(range(len(names)), names)
    axes.tick_params(axis="x", labelcolor=TEXT)
    axes.set_ylabel("test accuracy, % ± standard error")
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")


def _counts(cell: Cell) -> dict[str, int]:
    return {"correct": cell["correct"], "n": cell["n"]}


def _accuracy(cell: Cell) -> str:
    return str(Accuracy(**_counts(cell)))


def _kl(divergence: dict[str, Any]) -> str:
    return " | ".join(_nats(divergence, where) for where in ("answers", "everywhere"))


def _nats(divergence: dict[str, Any], where: str) -> str:
    """Nats a position ± the standard error over texts; earlier cells have none, nor does a single text."""
    value, error = divergence[where], divergence.get(f"{where}_error")
    if value is None:
        return ""
    return f"{value:.4f}" + ("" if error is None else f" ± {error:.4f}")
