"""Small multiples: a panel a task, side by side, with one legend."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from trimtab.figures import TEXT, figure

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 3


@contextmanager
def panels(name: str, titles: Sequence[str], labels: int, height: float = 2.7) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure with a panel for each title, at most three in a row; the legend is drawn at the end.

    Args:
        name: of the figure.
        titles: of the panels.
        labels: how many series have a label in the legend.
        height: of a panel in inches.
    """
    columns = 2 if len(titles) == 4 else min(_COLUMNS, len(titles))
    rows = math.ceil(len(titles) / columns)
    width = {1: 5.6, 2: 8.4, 3: 10.2}[columns]
    legend_columns = {1: 2, 2: 4, 3: 5}[columns]
    legend_height = 0.25 + 0.22 * math.ceil(labels / legend_columns)
    with figure(name, width, height * rows + legend_height, font_size=9.5) as drawing:
        grid = list(drawing.subplots(rows, columns, squeeze=False).ravel())
        for axes, title in zip(grid, titles, strict=False):
            axes.set_title(title, loc="left", color=TEXT)
            axes.grid(axis="y")
        for axes in grid[len(titles) :]:
            axes.set_visible(False)
        shown = grid[: len(titles)]
        yield drawing, shown
        handles: dict[str, Artist] = {}
        for axes in shown:
            shapes, found = axes.get_legend_handles_labels()
            for shape, label in zip(shapes, found, strict=True):
                handles.setdefault(label, shape)
        if handles:
            drawing.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=legend_columns)


def file_name(*words: str) -> str:
    """Words as the name of a file."""
    return "-".join(re.sub(r"[^\w.]+", "-", word).strip("-").lower() for word in words)
