"""What a report is made of: sections of paragraphs, tables and pictures, which Markdown and HTML show alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOTHING = "–"
"""What stands in a cell for which there is no number."""


@dataclass(frozen=True)
class Paragraph:
    """Plain text."""

    text: str


@dataclass(frozen=True)
class Row:
    """A line of a table; `reference`: its numbers are not ours."""

    cells: tuple[str, ...]
    reference: bool = False


@dataclass(frozen=True)
class Table:
    """A table. `words` of its first columns are text, the others are numbers; `note` stands below it."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Row]
    words: int = 1
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse a row of another length: its numbers would stand under the wrong names."""
        for row in self.rows:
            if len(row.cells) != len(self.columns):
                raise ValueError(f"{self.title!r} has {len(self.columns)} columns and a row of {len(row.cells)} cells.")


@dataclass(frozen=True)
class Picture:
    """A figure; its label is the name of its file. `alt` says in words what it shows, `note` stands below it."""

    title: str
    drawing: Figure
    alt: str
    note: str = ""

    @property
    def name(self) -> str:
        """The name of its file, without suffix."""
        return str(self.drawing.get_label())


Part = Paragraph | Table | Picture


@dataclass(frozen=True)
class Section:
    """A part of the report under a title of its own."""

    title: str
    parts: Sequence[Part]


def percent(share: float | None, digits: int = 1) -> str:
    """A share as a number of percent."""
    return NOTHING if share is None else f"{100 * share:.{digits}f}"


def signed(share: float | None) -> str:
    """A difference of shares as a number of percent points with its sign, as the paper prints it."""
    if share is None:
        return NOTHING
    number = f"{100 * share:+.1f}"
    return "0.0" if float(number) == 0 else number.replace("-", "−")


def significant(share: float | None) -> str:
    """A share as a number of percent with two digits that count, as the paper prints parameters."""
    if share is None:
        return NOTHING
    return f"{100 * share:.0f}" if share >= 0.1 else f"{100 * share:#.2g}"
