"""Table, correlations and figure of benchmarks/advisor.py, from its measurements alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from _harness import table
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from trimtab.figures import MARKERS, SERIES, figure

SIZE = "fewer parameters first"
"""Of gains per parameter the predictor that knows nothing else."""

Row = dict[str, Any]
Found = dict[str, dict[str, dict[str, float]]]
"""By predictor and group ("all", "maps", "vectors"): Spearman's rho, n and p."""


def gain_correlations(rows: list[Row]) -> Found:
    """Of predicted and measured gain, for each predictor."""
    return {
        name: _correlations([(row["rank"], row["predicted"][name], row["measured"]) for row in rows])
        for name in rows[0]["predicted"]
    }


def per_parameter_correlations(rows: list[Row]) -> Found:
    """Of predicted and measured gain per parameter, by which the advisor ranks; and for `SIZE` of 1 / parameters."""
    predictors = {name: [row["predicted"][name] for row in rows] for name in rows[0]["predicted"]}
    predictors[SIZE] = [1.0] * len(rows)
    return {
        name: _correlations(
            [
                (row["rank"], gain / row["parameters"], row["measured"] / row["parameters"])
                for row, gain in zip(rows, predicted, strict=True)
            ]
        )
        for name, predicted in predictors.items()
    }


def _correlations(points: list[tuple[int | None, float, float]]) -> dict[str, dict[str, float]]:
    """Of (rank, predicted, measured): over all, over the maps and over the vectors."""
    groups = {
        "all": points,
        "maps": [point for point in points if point[0] is not None],
        "vectors": [point for point in points if point[0] is None],
    }
    found = {}
    for name, members in groups.items():
        _, predicted, measured = zip(*members, strict=True)
        result = spearmanr(predicted, measured)
        found[name] = {"rho": float(result.statistic), "n": len(members), "p": float(result.pvalue)}
    return found


def markdown(record: dict[str, Any]) -> str:
    """What the first predictor says and what was measured; how well each ranks gains, and gains per parameter."""
    rows = record["rows"]
    first = next(iter(rows[0]["predicted"]))
    measured = []
    for row in rows:
        best = min(row["trained"], key=lambda one: one["loss"])
        losses = ", ".join(f"{one['loss']:.3f} ({one['rate']:g})" for one in row["trained"])
        accuracy = (
            "" if row["accuracy"] is None else f"{100 * row['accuracy']:.1f} ± {100 * best['standard_error']:.1f}"
        )
        predicted = f"{float(format(row['predicted'][first], '.3g')):,.0f}"  # three figures
        parameters = f"{row['parameters']:,}"
        measured.append([row["label"], parameters, predicted, f"{row['measured']:.3f}", losses, accuracy])
    head = ["adapter", "parameters", "predicted gain", "measured gain, nats", "loss (rate)", "accuracy, %"]
    return "\n".join(
        [
            table(head, measured),
            _rank_table("gain", record["spearman"]),
            _rank_table("gain per parameter", record["spearman_per_parameter"]),
        ]
    )


def _rank_table(what: str, found: Found) -> str:
    groups = [f"{name}, n = {one['n']:.0f}" for name, one in next(iter(found.values())).items()]
    lines = [[name, *(f"{one['rho']:.2f} (p {_p(one['p'])})" for one in each.values())] for name, each in found.items()]
    return table([f"predictor of the {what}", *groups], lines)


def _p(value: float) -> str:
    return f"= {value:.2f}" if value >= 0.005 else "< 0.005"


def comparison(record: dict[str, Any]) -> Figure:
    """Measured over predicted, gains and gains per parameter: the marker says where, a hollow one is a vector's."""
    rows = record["rows"]
    first = next(iter(rows[0]["predicted"]))
    with figure("advisor", 12.6, 5) as drawing:
        gains, each = drawing.subplots(1, 2)
        _points(gains, rows, first, lambda row: 1)
        _points(each, rows, first, lambda row: row["parameters"] / 1000)
        rank = next(row["rank"] for row in rows if row["rank"] is not None)
        handles = gains.get_legend_handles_labels()
        drawing.legend(*handles, loc="outside right upper", title=f"filled: r = {rank}\nhollow: a vector")
        gains.set_xlabel("predicted: first-order gain, nats an answer token")
        gains.set_ylabel("measured: fall of the validation loss,\nnats an answer token")
        each.set_yscale("log")
        each.set_xlabel("predicted gain per thousand parameters")
        each.set_ylabel("measured fall per thousand parameters")
        for axes, found in ((gains, record["spearman"]), (each, record["spearman_per_parameter"])):
            axes.set_title(", ".join(f"{name} {one['rho']:.2f}" for name, one in found[first].items()), loc="left")
        drawing.suptitle("Spearman's correlation of predicted and measured", fontsize="medium")
    return drawing


def _points(axes: Axes, rows: list[Row], predictor: str, size: Callable[[Row], float]) -> None:
    """A point an adapter, predicted and measured both divided by its size."""
    where = list(dict.fromkeys((row["site"], row["layers"]) for row in rows))
    for row in rows:
        index = where.index((row["site"], row["layers"]))
        colour = SERIES[index % len(SERIES)]
        axes.scatter(
            row["predicted"][predictor] / size(row),
            row["measured"] / size(row),
            label=row["label"].partition(",")[0] if row["rank"] is not None else None,
            marker=MARKERS[index],
            s=60,
            linewidths=1.6,
            edgecolors=colour,
            facecolors="none" if row["rank"] is None else colour,
        )
    axes.set_xscale("log")
    axes.grid()
