"""The style of figures: files that can be repeated, and series that differ without colour."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import matplotlib
import pytest

from trimtab import figures
from trimtab.figures import (
    CSS_VARIABLES,
    SERIES,
    figure,
    inline_svg,
    logarithmic,
    page_colours,
    save_svg,
    series,
    svg_text,
)


def drawn(name: str = "test") -> str:
    """A figure with a line of text."""
    with figure(name, 4, 3) as drawing:
        axes = drawing.subplots()
        axes.plot([1, 2], [3, 4], label="a < b", **series(0))
        axes.legend()
    return svg_text(drawing)


def test_a_figure_is_the_same_every_time_and_its_text_is_text() -> None:
    """Neither a date nor a random id; the label can be read, and is escaped."""
    assert drawn() == drawn()
    assert "a &lt; b</text>" in drawn()


def test_ids_of_two_figures_differ() -> None:
    """On one page a figure that refers to another's clip path would be cut by it."""
    ids = [set(re.findall(r'id="([^"]+)"', drawn(name))) for name in ("one", "two")]
    clips = [{each for each in found if each.startswith("p")} - {"patch_1"} for found in ids]
    assert {i for i in clips[0] if len(i) == 11}.isdisjoint(clips[1])


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ((0.2, 1.8), ["0.2", "0.5", "1", "2"]),
        ((1e-4, 5e-4), ["0.0001", "0.0002", "0.0005"]),
        ((1.5, 70.0), ["2", "5", "10", "20", "50"]),
    ],
)
def test_ticks_of_a_short_logarithmic_axis_are_plain_numbers(values: tuple[float, float], ticks: list[str]) -> None:
    """1, 2 and 5 of each decade as they are; no product with a power of ten, and no label on another digit."""
    with figure("ticks", 4, 3) as drawing:
        axes = drawing.subplots()
        axes.plot(values, [1, 2])
        logarithmic(axes)
        drawing.canvas.draw()
        low, high = axes.get_xlim()
        pairs = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
        assert [label.get_text() for place, label in pairs if low <= place <= high] == ticks
        assert not any(label.get_text() for label in axes.get_xticklabels(minor=True))


def test_a_long_logarithmic_axis_has_powers_of_ten() -> None:
    """From 0.0004 to 100 per cent 1, 2 and 5 would be too many."""
    with figure("powers", 4, 3) as drawing:
        axes = drawing.subplots()
        axes.plot([4e-4, 100], [1, 2])
        logarithmic(axes)
        drawing.canvas.draw()
        labels = [label.get_text() for label in axes.get_xticklabels()]
        assert all("10^" in label for label in labels)
        assert not any(label.get_text() for label in axes.get_xticklabels(minor=True))


def test_the_style_ends_with_the_figure() -> None:
    """The process keeps its own settings."""
    before = dict(matplotlib.rcParams)
    drawn()
    assert dict(matplotlib.rcParams) == before


def test_an_inline_figure_takes_its_colours_from_the_page() -> None:
    """No colour of the style is left, and the page defines each variable in the light, in the dark and on paper."""
    with figure("inline", 4, 3) as drawing:
        axes = drawing.subplots()
        for index in range(len(SERIES)):
            axes.plot([1, 2], [index, 4], **series(index))
    inline = inline_svg(drawing)
    assert inline.startswith('<svg role="img" ')
    assert not any(colour in inline for colour in CSS_VARIABLES)
    for variable in set(re.findall(r"var\((--[\w-]+)\)", inline)):
        assert page_colours().count(f" {variable}: #") == 3


def test_series_differ_without_colour() -> None:
    """Thirteen by the marker alone, neighbours by their dashes too; with colour as many as there are methods."""
    styles = [series(index) for index in range(78)]
    assert len({style["marker"] for style in styles[:13]}) == 13
    assert all(str(a["linestyle"]) != str(b["linestyle"]) for a, b in pairwise(styles))
    assert len({(style["marker"], style["color"]) for style in styles}) == 78


def test_colours_differ_in_the_eyes_of_the_colour_blind() -> None:
    """Simulated without one kind of cone (Viénot et al. 1999), the first three are far apart."""
    without_red = ((0.1121, 0.8853, -0.0005), (0.1127, 0.8897, -0.0001), (0.0045, 0.0000, 1.0019))
    without_green = ((0.2920, 0.7054, -0.0003), (0.2934, 0.7089, 0.0000), (-0.0210, 0.0255, 0.9959))
    for matrix in (without_red, without_green):
        seen = []
        for colour in SERIES[:3]:
            linear = [(int(colour[i : i + 2], 16) / 255) ** 2.2 for i in (1, 3, 5)]
            seen.append([max(sum(m * c for m, c in zip(row, linear, strict=True)), 0.0) ** (1 / 2.2) for row in matrix])
        for i, one in enumerate(seen):
            for other in seen[i + 1 :]:
                assert sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5 > 0.15


def test_a_file_is_written_into_a_folder_of_its_own(tmp_path: Path) -> None:
    """And nothing else is left beside it."""
    with figure("file", 4, 3) as drawing:
        drawing.subplots()
    save_svg(drawing, tmp_path / "new" / "file.svg")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file.svg"]


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is drawn."""
    monkeypatch.setattr(figures.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"trimtab\[report\]"), figure("none", 4, 3):
        pass
