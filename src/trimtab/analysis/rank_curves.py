"""Rank, nonlinearity and model size: the accuracy of low-rank steering in the records of a sweep (figure 5, left).

Not a measurement on a model, so without an entry in the table of analyses: a sweep has to be run first
(recipes/smol-rank.yaml).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from trimtab.analysis.base import Finding
from trimtab.results import CellRecord, RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINEAR = "linear"


@dataclass(frozen=True)
class RankPoint:
    """One rank of a curve: accuracy at the rate that validation has chosen.

    Attributes:
        rank: r.
        accuracy: the mean over the seeds, 0 to 1.
        standard_deviation: over the seeds; None with one seed.
        standard_error: sqrt(p (1 - p) / n), by the number of examples, which all ranks share.
        n: examples.
        seeds: how many.
        learning_rate: the chosen one.
    """

    rank: int
    accuracy: float
    standard_deviation: float | None
    standard_error: float
    n: int
    seeds: int
    learning_rate: float


@dataclass(frozen=True)
class RankCurve:
    """Low-rank steering of one kind, on one model and task, by ascending rank.

    Attributes:
        model: as in the recipe.
        model_parameters: its size.
        task: as in the recipe.
        activation: f in W_up f(W_down h); "linear" for none.
        points: one a rank.
    """

    model: str
    model_parameters: int
    task: str
    activation: str
    points: tuple[RankPoint, ...]


@dataclass(frozen=True)
class RankCurves(Finding):
    """All curves of a sweep, the smallest model first."""

    curves: tuple[RankCurve, ...]

    def to_dict(self) -> dict[str, Any]:
        """The curves as JSON has them."""
        return {"curves": [asdict(curve) for curve in self.curves]}

    def figure(self) -> Figure:
        """A panel for each model and task; bars are standard deviations over seeds, or standard errors of one seed."""
        from trimtab.figures import figure

        places = self._places()
        with figure("rank-curves", max(4.6, 3.6 * len(places)), 3.4) as drawing:
            panels = drawing.subplots(1, len(places), sharey=True, squeeze=False)[0]
            for axes, (place, curves) in zip(panels, places.items(), strict=True):
                _panel(axes, curves)
                axes.set_title(place)
            panels[0].set_ylabel("accuracy, %")
            panels[0].set_ylim(bottom=0)
            panels[-1].legend(loc="lower right")
        return drawing

    def _places(self) -> dict[str, list[RankCurve]]:
        """The curves of each model and task, under the title of their panel."""
        places: dict[str, list[RankCurve]] = {}
        for curve in self.curves:
            title = f"{curve.model} ({curve.model_parameters / 1e6:,.0f} M)\n{curve.task}"
            places.setdefault(title, []).append(curve)
        return places

    @property
    def caption(self) -> str:
        """What is drawn."""
        points = [point for curve in self.curves for point in curve.points]
        seeds, n = (sorted({getattr(point, name) for point in points}) for name in ("seeds", "n"))
        error = 100 * max(point.standard_error for point in points)
        bars = "standard errors" if seeds == [1] else "standard deviations"
        return (
            "Accuracy of low-rank steering by rank, linear and with an activation inside (figure 5, left), each at the "
            f"learning rate that validation chose: mean over {_range(seeds)} seed(s), with {bars}. All "
            f"ranks answer the same {_range(n)} examples, whose number alone gives a standard error of up to "
            f"{error:.1f} points."
        )

    @property
    def summary(self) -> str:
        """For each curve, the first and the best rank."""
        return " ".join(
            f"{curve.model}, {curve.task}, {curve.activation}: {100 * first.accuracy:.1f} % at rank {first.rank}, "
            f"at best {100 * best.accuracy:.1f} % at rank {best.rank} (n = {best.n:,})."
            for curve in self.curves
            for first, best in [(curve.points[0], max(curve.points, key=lambda point: point.accuracy))]
        )


def rank_curves(cells: Sequence[CellRecord], runs: Sequence[RunRecord]) -> RankCurves:
    """The curves of a sweep over ranks.

    Cells of other methods are passed over, and so are cells that have not finished.

    Args:
        cells: of a sweep (`trimtab.sweeps.load_cells`).
        runs: of the same sweep (`load_results`): their configurations say rank and activation.

    Raises:
        ValueError: no cell of low-rank steering has finished, or two of one curve have the same rank.
    """
    configurations = {run.run: run.configuration["method"] for run in runs}
    found: dict[tuple[int, str, str, str], dict[int, RankPoint]] = {}
    for cell in cells:
        if cell.family != "steering" or not cell.runs or cell.missing:
            continue
        options = configurations[cell.runs[0]]["adapter"]
        if options.get("intervention", "low_rank") != "low_rank":
            continue
        activation, point = options.get("activation") or LINEAR, _point(cell, int(options["r"]))
        points = found.setdefault((cell.model_parameters or 0, cell.model, cell.task, activation), {})
        if point.rank in points:
            raise ValueError(f"{cell.method!r} is a second method of rank {point.rank}, {activation}, on {cell.task}.")
        points[point.rank] = point
    if not found:
        raise ValueError("The sweep has no finished cell of low-rank steering.")
    return RankCurves(
        tuple(
            RankCurve(model, size, task, activation, tuple(points[rank] for rank in sorted(points)))
            for (size, model, task, activation), points in sorted(found.items())
        )
    )


def _point(cell: CellRecord, rank: int) -> RankPoint:
    numbers = (cell.accuracy, cell.standard_error, cell.n, cell.learning_rate)
    if any(number is None for number in numbers):
        raise ValueError(f"The cell of {cell.method!r} on {cell.task} has runs and no score.")
    accuracy, error, n, rate = (float(number or 0) for number in numbers)
    return RankPoint(rank, accuracy, cell.standard_deviation, error, int(n), len(cell.accuracies), rate)


def _panel(axes: Axes, curves: Sequence[RankCurve]) -> None:
    from trimtab.figures import series

    # Moved apart a little, so that bars at one rank do not hide each other.
    shifts = [1 + 0.05 * (index - (len(curves) - 1) / 2) for index in range(len(curves))]
    for index, (curve, shift) in enumerate(zip(curves, shifts, strict=True)):
        bars = [
            point.standard_error if point.standard_deviation is None else point.standard_deviation
            for point in curve.points
        ]
        axes.errorbar(
            [shift * point.rank for point in curve.points],
            [100 * point.accuracy for point in curve.points],
            yerr=[100 * bar for bar in bars],
            label=curve.activation,
            **series(index),
        )
    ranks = sorted({point.rank for curve in curves for point in curve.points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ranks, [str(rank) for rank in ranks])
    axes.minorticks_off()
    axes.set_xlabel("rank")
    axes.grid(axis="y")


def _range(values: Sequence[int]) -> str:
    """The values in words: one, or from - to."""
    return f"{values[0]:,}" if len(values) == 1 else f"{values[0]:,} to {values[-1]:,}"
