"""What is on a page of documentation: fenced blocks, command lines, links and anchors."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import takewhile
from pathlib import Path

import markdown

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\S*)[^\n]*\n(?P<code>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        language: what stands behind the fence.
        code: the lines between the fences.
        line: where in the page the code begins, from 1.
        before: the page's text in front of the block.
    """

    language: str
    code: str
    line: int
    before: str


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        indent = len(match["indent"])
        code = "".join(line[indent:] or "\n" for line in match["code"].splitlines(keepends=True))
        line = text.count("\n", 0, match.start("code")) + 1
        found.append(Block(match["language"], code, line, text[: match.start()]))
    return found


class RenderedPage(HTMLParser):
    """The targets of the links, and the anchors, of a page as HTML."""

    def __init__(self, page: Path) -> None:
        """Render the page with the extensions of mkdocs.yml that make anchors and links."""
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()
        extensions = ["toc", "tables", "attr_list", "def_list", "pymdownx.superfences"]
        self.feed(markdown.markdown(page.read_text(encoding="utf-8"), extensions=extensions))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note where an element leads and how it can be reached."""
        given = dict(attrs)
        self.targets += [value for name in ("href", "src") if (value := given.get(name))]
        if given.get("id"):
            self.anchors.add(str(given["id"]))


def commands(page: Path, program: str) -> list[list[str]]:
    """The words behind `program` in each of its command lines in a page.

    In a block called bash every line is typed; in one called console only those behind a `$ `.
    """
    found = []
    for block in blocks(page):
        if block.language not in {"bash", "console"}:
            continue
        for line in block.code.replace("\\\n", " ").splitlines():
            typed = line.removeprefix("$ ")
            if block.language == "console" and typed == line:
                continue
            words = shlex.split(typed, comments=True)
            if words and words[0] == program:
                found.append(list(takewhile(lambda word: word not in {"|", "&&", ";", ">"}, words[1:])))
    return found
