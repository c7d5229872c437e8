"""An option that a configuration does not have: an error that names the nearest one, in code and in a saved file.

PEFT drops the keys of a file that it does not know, with a warning: a newer PEFT may have written them. A key that is
only misspelt would silently be the default.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

import peft
from packaging.version import InvalidVersion, Version

from trimtab.registry import unknown

_MISSPELT = 0.75
"""From this similarity on (difflib) a key is taken for one of ours that is misspelt, whoever wrote it."""


def with_known_options(config: type[Any]) -> type[Any]:
    """A decorator above `dataclass`: the constructor names the nearest option where it is given an unknown one.

    It raises a TypeError, as Python does, or a ValueError for the content of an adapter_config.json. What only a newer
    PEFT can have added is left to PEFT, which warns and drops it.
    """
    construct = config.__init__

    @functools.wraps(construct)
    def named(self: Any, *args: Any, **options: Any) -> None:
        known = {field.name for field in fields(self) if field.init}
        saved = is_saved(options.get("peft_type"))
        for name in strange_options(options, known) if saved else sorted(options.keys() - known):
            if saved:
                raise unknown("key of adapter_config.json", name, known)
            raise TypeError(str(unknown(f"option of {type(self).__name__}", name, known)))
        construct(self, *args, **options)

    config.__init__ = named
    return config


def is_saved(peft_type: Any) -> bool:
    """Whether a configuration that is constructed with this `peft_type` comes from a file.

    PEFT passes on what stands in the file, which is text; a configuration of this process has a member of `PeftType`.
    """
    return type(peft_type) is str


def strange_options(saved: Mapping[str, Any], known: Collection[str]) -> list[str]:
    """The keys of a saved configuration that are not `known`, less those that only a newer PEFT can have added."""
    newer = _is_newer(saved.get("peft_version"))
    return [
        name
        for name in sorted(saved.keys() - set(known))
        if not newer or difflib.get_close_matches(name, known, n=1, cutoff=_MISSPELT)
    ]


def _is_newer(version: Any) -> bool:
    """Whether a file of this PEFT version was written by a newer PEFT than the one that runs."""
    try:
        return Version(str(version).partition("@")[0]) > Version(peft.__version__)
    except InvalidVersion:
        return False
