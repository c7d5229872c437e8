"""A folder with a tiny model and some data, in which the command line is called."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from cli.commands import ROWS, Run
from tiny_directory import save_tiny_model
from trimtab.cli import main


@pytest.fixture(scope="package")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, written once."""
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def run(saved_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line in an empty folder with a model and some data; gives the exit code."""
    monkeypatch.chdir(tmp_path)
    Path("model").symlink_to(saved_model)
    Path("data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def call(line: str) -> int:
        try:
            return main(shlex.split(line))
        except SystemExit as stopped:
            return int(stopped.code or 0)

    return call
