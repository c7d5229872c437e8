"""What all export formats have in common: found in their folder, and what they refuse before they read anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiny_language import LastLetter
from trimtab.exports import Source, export_names, get_export
from trimtab.tasks import get_task


def test_formats_are_found_in_their_folder() -> None:
    """One file each."""
    assert export_names() == ("lm-eval", "lm-eval-steered")


def test_an_unknown_format_is_named_with_the_nearest() -> None:
    """As every name."""
    with pytest.raises(ValueError, match="Did you mean 'lm-eval'"):
        get_export("lm-evl")


@pytest.mark.parametrize("name", export_names())
def test_what_is_exported_must_be_given(name: str, tmp_path: Path) -> None:
    """The option is named."""
    of = get_export(name).of
    with pytest.raises(ValueError, match=f"give --{of}"):
        get_export(name).write(Source(), tmp_path / "out.pt")


@pytest.mark.parametrize("name", export_names())
def test_what_is_there_is_kept(name: str, tmp_path: Path) -> None:
    """Neither a file nor a directory is replaced."""
    (tmp_path / "out.pt").write_text("four years of work")
    source = Source(adapter=tmp_path, task=get_task("listops-small"))
    with pytest.raises(FileExistsError, match=r"out\.pt is there already"):
        get_export(name).write(source, tmp_path / "out.pt")
    assert (tmp_path / "out.pt").read_text() == "four years of work"


def test_a_file_has_its_formats_ending(tmp_path: Path) -> None:
    """lm-eval tells what a file is by it."""
    with pytest.raises(ValueError, match=r"ends in \.pt, not 'out\.csv'"):
        get_export("lm-eval-steered").write(Source(adapter=tmp_path), tmp_path / "out.csv")


def test_a_task_that_nobody_else_can_find_is_refused(tmp_path: Path) -> None:
    """A class of this process alone: the message says where to put it; nothing is left behind."""
    with pytest.raises(ValueError, match=r"Put its class into a Python file"):
        get_export("lm-eval").write(Source(task=LastLetter()), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
