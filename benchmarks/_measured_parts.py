"""Parts of a page of the documentation that a benchmark writes:

    <!-- study: What -->  ...  <!-- end of study: What -->

Everything else on the page is written by hand, and stays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from trimtab.files import write_text

_PART = re.compile(r"<!-- (?P<name>[\w-]+: [^\n]+?) -->\n(?P<text>.*?)\n?<!-- end of (?P=name) -->", re.DOTALL)


def measured_parts(page: Path) -> dict[str, str]:
    """The parts of a page, by benchmark and name ("study: What")."""
    return {found["name"]: found["text"].strip() for found in _PART.finditer(page.read_text(encoding="utf-8"))}


def fill(page: Path, benchmark: str, parts: Mapping[str, str]) -> None:
    """Put the parts of a benchmark, by name, into their places on a page.

    Raises:
        ValueError: the page has no such place.
    """
    wanted = {f"{benchmark}: {name}": text.strip() for name, text in parts.items()}
    if missing := wanted.keys() - measured_parts(page).keys():
        raise ValueError(
            f"{page} has no place for {', '.join(sorted(missing))}: <!-- name --> ... <!-- end of name -->."
        )

    def replaced(found: re.Match[str]) -> str:
        name = found["name"]
        if name not in wanted:
            return found[0]
        return f"<!-- {name} -->\n\n{wanted[name]}\n\n<!-- end of {name} -->"

    write_text(page, _PART.sub(replaced, page.read_text(encoding="utf-8")))
