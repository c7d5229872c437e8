"""What other programs can read: one file a target format, found by its folder."""

from __future__ import annotations

import inspect
import sys
from functools import cache

from trimtab.exports.base import Export, Source
from trimtab.registry import check_choice, modules_in

__all__ = ["Export", "Source", "export_names", "get_export"]


@cache
def _table() -> dict[str, type[Export]]:
    """Every concrete export of the folder by its name."""
    return {
        member.name: member
        for module in modules_in(sys.modules[__name__])
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, Export) and not inspect.isabstract(member)
    }


def export_names() -> tuple[str, ...]:
    """The names of all formats, sorted."""
    return tuple(sorted(_table()))


def get_export(name: str) -> Export:
    """The export of that name.

    Raises:
        ValueError: there is no such format; the message names the nearest one.
    """
    return _table()[check_choice("export format", name, export_names())]()
