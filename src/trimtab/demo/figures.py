"""The figures of the page, in the style of every figure, as a file and as a part of the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trimtab.demo.outcomes import Outcome
from trimtab.figures import BASE_COLOUR, MARKERS, MUTED, SERIES, TEXT, figure, inline_svg, svg_text

_WINDOW = 20  # steps that a point of the loss curves is the mean of


@dataclass(frozen=True)
class Drawn:
    """A figure as a file of its own, as a part of the page, and in words for those who cannot see it."""

    file: str
    inline: str
    alt: str


def accuracy_bars(outcomes: Sequence[Outcome]) -> Drawn:
    """A bar an outcome, with its standard error."""
    with _axes("accuracy", 5.4, 0.62 + 0.5 * len(outcomes)) as (drawing, axes):
        for row, outcome in enumerate(outcomes):
            axes.barh(row, outcome.percent, height=0.62, color=colour_of(outcome, outcomes))
            axes.errorbar(
                outcome.percent,
                row,
                xerr=outcome.percent_error,
                color=TEXT,
                elinewidth=1.4,
                capsize=4,
                capthick=1.4,
            )
            axes.annotate(
                f"{outcome.percent:.1f}",
                (outcome.percent + outcome.percent_error, row),
                xytext=(7, 0),
                textcoords="offset points",
                va="center",
            )
        axes.set_yticks(range(len(outcomes)), [outcome.name for outcome in outcomes])
        axes.tick_params(axis="y", length=0, labelcolor=TEXT)
        axes.invert_yaxis()
        axes.set_xlim(0, _upper(outcomes) * 1.1)
        axes.set_xlabel("accuracy, % ± standard error")
        axes.grid(axis="x")
        words = "; ".join(f"{o.name} {o.percent:.1f} ± {o.percent_error:.1f} %" for o in outcomes)
        return _drawn(drawing, f"Accuracy with standard error: {words}.")


def accuracy_against_parameters(outcomes: Sequence[Outcome]) -> Drawn:
    """A point a method over the number of its parameters (logarithmic); the base is a line."""
    with _axes("parameters", 5.4, 0.62 + 0.5 * max(4, len(outcomes))) as (drawing, axes):
        trained = [outcome for outcome in outcomes if outcome.training]
        for outcome in outcomes:
            if not outcome.training:
                axes.axhline(outcome.percent, color=BASE_COLOUR, linestyle=(0, (4, 3)), linewidth=1.4)
                axes.annotate(
                    outcome.name,
                    (0, outcome.percent),
                    xycoords=axes.get_yaxis_transform(),
                    xytext=(6, 4),
                    textcoords="offset points",
                    color=MUTED,
                )
        for index, outcome in enumerate(trained):
            axes.errorbar(
                outcome.parameters,
                outcome.percent,
                yerr=outcome.percent_error,
                color=colour_of(outcome, outcomes),
                marker=MARKERS[index % len(MARKERS)],
                markersize=8,
                elinewidth=1.4,
                capsize=4,
                capthick=1.4,
            )
            axes.annotate(
                outcome.name,
                (outcome.parameters, outcome.percent - outcome.percent_error),
                xytext=(0, -6),
                textcoords="offset points",
                ha="center",
                va="top",
            )
        counts = [outcome.parameters for outcome in trained]
        axes.set_xscale("log")
        axes.set_xlim(min(counts) / 5, max(counts) * 5)  # room for the names
        axes.set_ylim(0, _upper(outcomes) * 1.1)
        axes.set_xlabel("trained parameters")
        axes.set_ylabel("accuracy, %")
        axes.grid(axis="y")
        words = "; ".join(f"{o.name}: {o.parameters:,} parameters, {o.percent:.1f} %" for o in trained)
        return _drawn(drawing, f"Accuracy against the number of trained parameters. {words}.")


def loss_curves(outcomes: Sequence[Outcome]) -> Drawn:
    """The training loss of each method, a moving mean over its steps."""
    with _axes("loss", 10.0, 2.9) as (drawing, axes):
        ends = []
        for outcome in outcomes:
            if outcome.curve:
                steps, losses = smooth(
                    [line["step"] for line in outcome.curve], [line["loss"] for line in outcome.curve]
                )
                axes.plot(steps, losses, color=colour_of(outcome, outcomes), linewidth=1.8, label=outcome.name)
                ends.append(f"{outcome.name} {losses[-1]:.2f}")
        axes.set_ylim(bottom=0)
        axes.margins(x=0.01)
        axes.set_xlabel("step")
        axes.set_ylabel("loss, nats a token")
        axes.grid(axis="y")
        axes.legend(loc="upper right", frameon=False, labelcolor=TEXT)
        return _drawn(drawing, f"Training loss over the steps; it ends at: {', '.join(ends)}.")


def smooth(steps: Sequence[float], values: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Means over windows of `_WINDOW` values (fewer if there are few), each at its last step."""
    width = max(1, min(_WINDOW, len(values) // 4))
    means = np.convolve(values, np.full(width, 1 / width), mode="valid")
    return np.asarray(steps)[width - 1 :], means


def colour_of(outcome: Outcome, outcomes: Sequence[Outcome]) -> str:
    """The colour of a method in every figure: by its place among those that were trained."""
    if outcome.training is None:
        return BASE_COLOUR
    names = [other.name for other in outcomes if other.training]
    return SERIES[names.index(outcome.name) % len(SERIES)]


@contextmanager
def _axes(name: str, width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """An empty figure in inches, with one pair of axes."""
    with figure(name, width, height) as drawing:
        yield drawing, drawing.add_subplot()


def _drawn(drawing: Figure, alt: str) -> Drawn:
    return Drawn(svg_text(drawing), inline_svg(drawing), alt)


def _upper(outcomes: Sequence[Outcome]) -> float:
    """The highest end of an error bar, at least one percent point."""
    return max(1.0, *(outcome.percent + outcome.percent_error for outcome in outcomes))
