"""Families of models, one file an anatomy: the names of the sub-modules inside a decoder layer.

Model types whose layers are built alike share a file. How to add one: docs/how-to/add-a-family.md.
"""

from __future__ import annotations

import sys

from trimtab.registry import modules_in
from trimtab.sites.base import Family


def known_families() -> list[Family]:
    """Every family, in alphabetical order of its file."""
    return [module.FAMILY for module in modules_in(sys.modules[__name__])]
