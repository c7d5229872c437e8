"""Files that are there completely or not at all."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from trimtab.files import new_directory, require_free_disk, write_text


def test_a_directory_appears_only_when_it_is_full(tmp_path: Path) -> None:
    """Nothing has its name while it is filled, and nothing else is left behind."""
    with new_directory(tmp_path / "deep" / "model") as filling:
        (filling / "weights").write_text("1")
        assert not (tmp_path / "deep" / "model").exists()
    assert (tmp_path / "deep" / "model" / "weights").read_text() == "1"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["model"]


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    """No directory and no temporary one."""
    with pytest.raises(RuntimeError, match="power"), new_directory(tmp_path / "model"):
        raise RuntimeError("power cut")
    assert list(tmp_path.iterdir()) == []


def test_the_first_of_two_writers_wins(tmp_path: Path) -> None:
    """Both fill the same directory at once: no error, and one whole content."""
    with new_directory(tmp_path / "model") as slow:
        (slow / "weights").write_text("slow")
        with new_directory(tmp_path / "model") as fast:
            (fast / "weights").write_text("fast")
    assert (tmp_path / "model" / "weights").read_text() == "fast"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_text_replaces_what_was_there(tmp_path: Path) -> None:
    """And leaves no temporary file."""
    write_text(tmp_path / "a.json", "one")
    write_text(tmp_path / "a.json", "two")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.json", "two")]


def test_too_little_room_is_an_error_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for a directory that does not exist yet."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 3_000_000))
    require_free_disk(tmp_path / "new" / "er", 3_000_000, "This")
    with pytest.raises(OSError, match=r"This needs about 4 MB in .*er, but only 3 MB are free"):
        require_free_disk(tmp_path / "new" / "er", 4_000_000, "This")
