"""What a power cut may leave of records: empty files block nothing, damaged ones are named."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from sweeps.small_sweep import numbers, small_recipe
from trimtab.sweeps import Grid, SweepDirectory, load_failures, load_results, sweep


@pytest.fixture
def out(folder: Path, tmp_path: Path) -> Path:
    """A finished sweep of one method."""
    go_on(folder, tmp_path / "out")
    return tmp_path / "out"


def go_on(folder: Path, out: Path) -> None:
    """Start the sweep again."""
    console = Console(file=io.StringIO())
    sweep(small_recipe(folder, methods=["post-block"], seeds=[0]), out, probe=False, console=console)


@pytest.mark.parametrize("of_a_training", [False, True])
def test_an_empty_record_is_none(folder: Path, out: Path, of_a_training: bool) -> None:
    """Of a run, or of what it trained: that is done again, with the same numbers."""
    before = numbers(load_results(out))
    for record in (out / "runs").glob("*/*-*.json"):
        record.write_text("")
    if of_a_training:
        for result in (out / "runs").glob("*/training/result.json"):
            result.write_text("")
    SweepDirectory(out).assemble()
    assert load_results(out) == []
    go_on(folder, out)
    assert numbers(load_results(out)) == before


def test_an_empty_failure_is_none(folder: Path, out: Path) -> None:
    """The run has neither failed nor finished."""
    run = Grid.of(small_recipe(folder)).cells[1].trials[0]
    directory = SweepDirectory(out)
    directory.home(run).mkdir()
    directory.file(run, ".failed.json").touch()
    assert directory.failure(run) is None
    directory.assemble()
    assert load_failures(out) == []


def test_a_damaged_record_is_named(folder: Path, out: Path) -> None:
    """The sweep stops with the file's name and with what can be done."""
    damaged, *_ = (out / "runs").glob("*/test-*.json")
    damaged.write_text(damaged.read_text()[:50])
    with pytest.raises(ValueError, match=rf"{damaged.name} holds no record.*Delete it"):
        go_on(folder, out)
