"""Lines for the command line: a short training on a few words, and an evaluation; what a run says that it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import yaml

Run = Callable[[str], int]
"""The command line: from its words to its exit code."""

TRAIN = "train --model model --task data.jsonl --max_steps 2 --batch_size 2 --device cpu --dtype float32"
EVAL = "eval --device cpu --dtype float32"
ROWS = [{"prompt": f"{word}\n", "completion": f"={word[-1]}"} for word in ("ab", "bc", "cde", "def")]


def recipe(directory: str) -> dict[str, dict[str, object]]:
    """The recipe in a run directory."""
    return yaml.safe_load(Path(directory, "recipe.yaml").read_text())
