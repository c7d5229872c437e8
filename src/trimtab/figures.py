"""One style for every figure: colours, markers and lines that differ in grey print too, and SVG that keeps its text.

    with figure("growth", 9, 4.4) as drawing:
        axes = drawing.subplots()
        axes.plot(steps, seconds, **series(0), label="post-block")
    save_svg(drawing, path)

matplotlib is an extra (`report`) and is imported only when something is drawn. Figures are made without pyplot, so
nothing is kept in the process. A figure is drawn once, in the colours below; on a page `inline_svg` replaces each of
them by a CSS variable, so that the figure follows the page into dark mode and onto paper.
"""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.files import write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEXT, MUTED, LINE = "#1b1f24", "#5b6470", "#d5d9de"
BASE_COLOUR = "#76797d"
# Okabe and Ito's colours, which people with any colour vision can tell apart, in an order of falling contrast. Markers
# and dashes say the same once more. Thirteen markers differ without any colour; with the six colours they make 78.
SERIES = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
MARKERS = ("s", "o", "^", "D", "v", "P", "X", "*", "<", ">", "p", "d", "h")
DASHES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), (0, (3, 1.5, 1, 1.5, 1, 1.5)))
CSS_VARIABLES = {
    TEXT: "--text",
    MUTED: "--muted",
    LINE: "--line",
    BASE_COLOUR: "--series-base",
    **{colour: f"--series-{index}" for index, colour in enumerate(SERIES)},
}
"""What a page has to define for its inline figures, by the colour of the file."""


def series(index: int) -> dict[str, Any]:
    """Colour, marker and dashes of the `index`-th series, as `Axes.plot` and `Axes.errorbar` take them."""
    return {
        "color": SERIES[index % len(SERIES)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": DASHES[index % len(DASHES)],
        "linewidth": 1.8,
        "markersize": 6,
    }


@contextmanager
def figure(name: str, width: float, height: float, *, font_size: float = 10.5) -> Iterator[Figure]:
    """An empty figure; what is drawn within `with` has the style.

    Args:
        name: tells the figure's ids from those of the others on a page; the same name gives the same file.
        width: inches.
        height: inches.
        font_size: points.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    require_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**_STYLE, "font.size": font_size}):
        drawing = Figure(figsize=(width, height), layout="constrained")
        drawing.set_label(name)
        yield drawing


def logarithmic(axes: Axes) -> None:
    """A logarithmic x axis for what is drawn in `axes`, with ticks that can be read.

    Up to two decades these are 1, 2 and 5 in plain numbers, beyond it the powers of ten. matplotlib labels every digit
    of a short axis, as products with a power of ten that run into each other.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_xscale("log")
    lowest, highest = axes.get_xlim()
    if highest <= 100 * lowest:
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=10))
        axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def svg_text(drawing: Figure, *, background: str = "white") -> str:
    """The figure as an SVG file; the same figure gives the same text every time."""
    import matplotlib

    # The salt makes the ids of a figure differ from those of the others on a page.
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": str(drawing.get_label()) or "figure"}):
        buffer = io.StringIO()
        drawing.savefig(buffer, format="svg", facecolor=background, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def inline_svg(drawing: Figure) -> str:
    """The figure as a part of an HTML page: no background, no header, its colours the page's `CSS_VARIABLES`."""
    text = svg_text(drawing, background="none")
    for colour, variable in CSS_VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # names of parts, the same in every figure; nothing refers to them
    return text[text.index("<svg") :].replace("<svg ", '<svg role="img" ', 1)


def save_svg(drawing: Figure, path: Path) -> None:
    """Write the figure to `path`, completely or not at all; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, svg_text(drawing))


def require_matplotlib() -> None:
    """Raise ModuleNotFoundError, which names the extra, if figures cannot be drawn here; before long work starts."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ModuleNotFoundError("Figures need matplotlib. Run: pip install 'trimtab[report]'")


_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be read aloud, searched and copied
    "font.family": "sans-serif",
    "text.color": TEXT,
    "axes.facecolor": "none",
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.titlesize": "medium",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "errorbar.capsize": 3,
}

_LIGHT = {
    "--background": "#ffffff",
    "--panel": "#f6f7f8",
    **{variable: colour for colour, variable in CSS_VARIABLES.items()},
}
_DARK = {
    "--background": "#14171a",
    "--panel": "#1c2024",
    "--text": "#e6e8ea",
    "--muted": "#a3abb5",
    "--line": "#3a4047",
    "--series-base": "#9aa0a6",
    "--series-0": "#f08441",
    "--series-1": "#4fa8e0",
    "--series-2": "#2cc295",
    "--series-3": "#e0a3c5",
    "--series-4": "#84ccf4",
    "--series-5": "#f2b736",
}
_PAPER = {**_LIGHT, "--text": "#000000", "--muted": "#444444", "--line": "#bbbbbb"}


def page_colours() -> str:
    """The CSS that a page with inline figures needs: every variable, in the light, in the dark and on paper."""
    light, dark, paper = (
        f":root {{ {' '.join(f'{name}: {value};' for name, value in colours.items())} }}"
        for colours in (_LIGHT, _DARK, _PAPER)
    )
    return f"{light}\n@media (prefers-color-scheme: dark) {{ {dark} }}\n@media print {{ {paper} }}"
