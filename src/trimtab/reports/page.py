"""A report as one HTML page that needs nothing else: no network, no script, no other file."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.figures import inline_svg, page_colours
from trimtab.reports.document import Paragraph, Part, Picture, Section, Table


def page(title: str, sections: Sequence[Section]) -> str:
    """The page as text; the figures are part of it."""
    # Only here: the library and its other verbs work without the packages of the extra `report`.
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("trimtab.reports", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["whole"] = _whole
    environment.tests["paragraph"] = lambda part: isinstance(part, Paragraph)
    environment.tests["table"] = lambda part: isinstance(part, Table)
    return environment.get_template("page.html.j2").render(
        title=title,
        sections=sections,
        colours=Markup(page_colours()),  # noqa: S704  # made of our own constants
        svg=lambda part: Markup(inline_svg(_picture(part).drawing)),  # noqa: S704  # matplotlib escapes texts
    )


def _whole(cell: str) -> str:
    """A cell that is broken, if at all, in front of its bracket and not inside "52.3 ± 1.1"."""
    return cell.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")


def _picture(part: Part) -> Picture:
    if not isinstance(part, Picture):
        raise TypeError(f"A section has a {type(part).__name__}: only paragraphs, tables and pictures are shown.")
    return part
