"""The figure of an advice: where in the model the gain is, and what it costs in parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trimtab.figures import MARKERS, SERIES, figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from trimtab.analysis.advice import Advice


def advice_figure(advice: Advice) -> Figure:
    """Four panels of first-order gains, in nats an answer token, a colour and marker a site.

    Above: of maps of r = 8 and of vectors in each layer, with an axis for each, as they are not to be compared. Below:
    of maps of ranks 1, 2, 4, ... in all layers over their parameters, and the same a thousand parameters.
    """
    rank = min(8, advice.kept)
    with figure("advice", 10, 7.6) as drawing:
        panels = drawing.subplots(2, 2)
        (maps, vectors), (by_size, each) = panels
        for index, site in enumerate(advice.sites):
            style: dict[str, Any] = {
                "color": SERIES[index],
                "marker": MARKERS[index],
                "markersize": 4.5,
                "linewidth": 1.6,
            }
            maps.plot(advice.layers, advice.gains(site, rank), label=site, **style)
            vectors.plot(advice.layers, advice.gains(site, None), linestyle=":", markerfacecolor="none", **style)
            choices = advice.maps(site)
            parameters = [choice.parameters for choice in choices]
            by_size.plot(parameters, [choice.gain for choice in choices], **style)
            each.plot(parameters, [1000 * choice.gain_per_parameter for choice in choices], **style)
        maps.set_title(f"maps of r = {rank}, in each layer", loc="left")
        vectors.set_title("vectors, in each layer", loc="left")
        by_size.set_title("maps in all layers: rank 1, 2, 4, ...", loc="left")
        each.set_title("the same, a thousand parameters", loc="left")
        for axes in (maps, vectors):
            axes.set_xlabel("decoder layer")
        for axes in (by_size, each):
            axes.set_xscale("log")
            axes.set_xlabel("parameters")
        for axes in panels.flat:
            axes.set_yscale("log")
            axes.grid(axis="y")
        for axes in panels[:, 0]:
            axes.set_ylabel("first-order gain, nats an answer token")
        drawing.legend(*maps.get_legend_handles_labels(), loc="outside upper center", ncols=len(advice.sites))
    return drawing
