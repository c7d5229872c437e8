"""A report as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from trimtab.reports.document import Paragraph, Part, Picture, Row, Section, Table

FIGURES = "figures"
"""The folder of the figures, beside the report."""


def markdown(title: str, sections: Sequence[Section]) -> str:
    """The report as text; its figures are files of the folder `figures`."""
    blocks = [f"# {escaped(title)}"]
    for section in sections:
        blocks.append(f"## {escaped(section.title)}")
        blocks += [_part(part) for part in section.parts]
    return "\n\n".join(blocks) + "\n"


def escaped(text: str) -> str:
    """Text in one line, in which no sign means anything to Markdown."""
    text = " ".join(text.split())
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", text).replace("<", "&lt;")


def _part(part: Part) -> str:
    if isinstance(part, Paragraph):
        return escaped(part.text)
    heading = f"### {escaped(part.title)}\n\n" if part.title else ""
    note = f"\n\n{escaped(part.note)}" if part.note else ""
    if isinstance(part, Picture):
        alt = escaped(part.alt)
        return f"{heading}![{alt}]({FIGURES}/{part.name}.svg){note}"
    return f"{heading}{_table(part)}{note}"


def _table(table: Table) -> str:
    marks = tuple("---" if index < table.words else "---:" for index in range(len(table.columns)))
    lines = [table.columns, marks]
    rows = [_line(line) for line in lines]
    return "\n".join([*rows, *(_line(_cells(row)) for row in table.rows)])


def _cells(row: Row) -> tuple[str, ...]:
    """A row's cells; numbers that are not ours are in italics."""
    texts = tuple(escaped(cell) for cell in row.cells)
    return tuple(f"*{text}*" for text in texts) if row.reference else texts


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
