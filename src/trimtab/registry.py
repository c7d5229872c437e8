"""Names: a folder of files becomes a table of choices, and an unknown name an error that helps."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Collection, Iterator
from types import ModuleType


def unknown(kind: str, name: object, choices: Collection[str]) -> ValueError:
    """The error for a name that is not among `choices`: it names the nearest one and all others.

    Args:
        kind: what the name stands for, as a user would say it ("site", "task", ...).
        name: what was asked for.
        choices: what there is.
    """
    nearest = difflib.get_close_matches(str(name), sorted(choices), n=1, cutoff=0.5)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return ValueError(f"Unknown {kind} {name!r}.{hint} Choose from: {', '.join(sorted(choices))}.")


def check_choice(kind: str, name: str, choices: Collection[str]) -> str:
    """Return `name` if it is one of `choices`; raise the error of `unknown` if not."""
    if name not in choices:
        raise unknown(kind, name, choices)
    return name


def modules_in(package: ModuleType) -> Iterator[ModuleType]:
    """Import every public module of a package's folder, in alphabetical order.

    A registry is the content of its folder: adding a file adds a choice, and nothing else is edited.
    """
    for found in sorted(pkgutil.iter_modules(package.__path__), key=lambda module: module.name):
        if not found.name.startswith("_"):
            yield importlib.import_module(f"{package.__name__}.{found.name}")
