"""The results of benchmarks/distillation.py so far: what is in the file is not measured again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trimtab.files import write_text
from trimtab.results import Environment


class Book:
    """The results so far, in a file that every new one is added to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.content: dict[str, Any] = {"settings": {}, "environment": {}, "cells": {}}
        if path.exists():
            self.content = json.loads(path.read_text(encoding="utf-8"))

    def open(self, task: str, settings: dict[str, Any]) -> None:
        """Note the settings of a task, which may differ from those of another; they stay as they are from then on."""
        known = self.content["settings"].setdefault(task, settings)
        if known != settings:
            raise SystemExit(f"{self._path} has {task} with other settings: {known}. Delete it, or use --results.")

    def cell(self, task: str, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The cell of this name, measured if it is not there."""
        key = f"{task}: {name}"
        if key not in self.content["cells"]:
            self.content["cells"][key] = measure()
            self._note(task, asdict(Environment.collect("cpu")))
            write_text(self._path, json.dumps(self.content, indent=1) + "\n")
            shown = {k: v for k, v in self.content["cells"][key].items() if k not in ("layers", "texts")}
            print(key, json.dumps(shown), flush=True)
        return dict(self.content["cells"][key])

    def _note(self, task: str, environment: dict[str, Any]) -> None:
        """Add what measured a cell to the task's environments: a task may be taken up again by another command."""
        known = self.content["environment"].setdefault(task, [])
        if environment not in known:
            known.append(environment)
