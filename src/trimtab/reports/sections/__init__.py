"""The sections of a report: one file a table or figure, found by its folder.

A file has `TITLE`, `ORDER` (the smaller, the further up) and `parts(outcomes)`, which gives the paragraphs, tables and
pictures of the section; none, and the section is left out.
"""

from __future__ import annotations

import sys
from types import ModuleType

from trimtab.registry import modules_in
from trimtab.reports.document import Section
from trimtab.reports.outcomes import Outcomes

_WANTED = ("TITLE", "ORDER", "parts")


def sections(outcomes: Outcomes) -> list[Section]:
    """Every section that has something to show, in order.

    Raises:
        AttributeError: a file of the folder lacks one of the three names.
    """
    modules = list(modules_in(sys.modules[__name__]))
    for module in modules:
        _check(module)
    found = [
        Section(module.TITLE, module.parts(outcomes))
        for module in sorted(modules, key=lambda each: (each.ORDER, each.__name__))
    ]
    return [section for section in found if section.parts]


def _check(module: ModuleType) -> None:
    lacking = [name for name in _WANTED if not hasattr(module, name)]
    if lacking:
        raise AttributeError(f"{module.__name__} is in the folder of sections and has no {', '.join(lacking)}.")
