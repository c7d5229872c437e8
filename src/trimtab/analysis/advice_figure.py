"""The figure of an advice: where in the model the gain is, and what it costs in parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trimtab.analysis.choice import Choice
from trimtab.figures import MARKERS, SERIES, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from trimtab.analysis.advice import Advice


HOLLOW = {"markerfacecolor": "none"}


def advice_figure(advice: Advice) -> Figure:
    """Three panels of first-order gains, in nats an answer token, a colour and marker a site; hollow is a vector.

    Left: of r = 8 and of a vector in each layer. Middle: in all layers, over the parameters of a vector and of ranks 1,
    2, 4, ... Right: the same a thousand parameters.
    """
    rank = min(8, advice.kept)
    with figure("advice", 13, 4.6) as drawing:
        by_layer, by_size, each = drawing.subplots(1, 3)
        for index, site in enumerate(advice.sites):
            style = {"color": SERIES[index], "marker": MARKERS[index], "markersize": 4.5, "linewidth": 1.6}
            by_layer.plot(advice.layers, advice.gains(site, rank), label=site, **style)
            by_layer.plot(advice.layers, advice.gains(site, None), linestyle=":", **{**style, **HOLLOW})
            maps, vector = advice.maps(site), advice.choice(site, None)
            _draw(by_size, maps, vector, [choice.gain for choice in (*maps, vector)], style)
            _draw(each, maps, vector, [1000 * choice.gain_per_parameter for choice in (*maps, vector)], style)
        by_layer.set_xlabel("decoder layer")
        by_layer.set_title(f"in each layer: r = {rank} (lines), a vector (dotted)", loc="left")
        by_size.set_title("in all layers: a vector (hollow), rank 1, 2, 4, ...", loc="left")
        each.set_title("the same, a thousand parameters", loc="left")
        for axes in (by_size, each):
            axes.set_xscale("log")
            axes.set_xlabel("parameters")
        for axes in (by_layer, by_size, each):
            axes.set_yscale("log")
            axes.grid(axis="y")
        by_layer.set_ylabel("first-order gain, nats an answer token")
        drawing.legend(*by_layer.get_legend_handles_labels(), loc="outside upper center", ncols=len(advice.sites))
    return drawing


def _draw(axes: Axes, maps: list[Choice], vector: Choice, heights: list[float], style: dict[str, Any]) -> None:
    axes.plot([choice.parameters for choice in maps], heights[:-1], **style)
    axes.plot([vector.parameters], heights[-1:], linestyle="none", **{**style, **HOLLOW})
