"""Files that are there completely or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import stat
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


@pytest.fixture
def synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """What was written to the disk, in order, and whether it was seen under its final name by then."""
    found: list[tuple[str, bool]] = []
    fsync = os.fsync

    def noted(handle: int) -> None:
        kind = "directory" if stat.S_ISDIR(os.fstat(handle).st_mode) else f"{os.fstat(handle).st_size} bytes"
        found.append((kind, (tmp_path / "final").exists()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    return found


def test_text_is_on_the_disk_before_it_has_its_name(tmp_path: Path, synced: list[tuple[str, bool]]) -> None:
    """After a power cut the name stands for the whole text or for what was there: content first, then the name."""
    write_text(tmp_path / "final", "one")
    assert synced == [("3 bytes", False), ("directory", True)]


def test_a_directory_is_on_the_disk_before_it_has_its_name(tmp_path: Path, synced: list[tuple[str, bool]]) -> None:
    """Every file in it, deep ones too, then its own list of names, then its name."""
    with new_directory(tmp_path / "final") as filling:
        (filling / "deep").mkdir()
        (filling / "deep" / "weights").write_text("12345")
    assert sorted(synced[:3]) == [("5 bytes", False), ("directory", False), ("directory", False)]
    assert synced[3:] == [("directory", True)]


def test_a_file_system_that_cannot_sync_directories_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some of the network's say "invalid argument"; a disk that fails is an error."""

    def answer(code: int) -> None:
        def fsync(handle: int) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "fsync", fsync)

    answer(errno.EINVAL)
    write_text(tmp_path / "final", "one")
    assert (tmp_path / "final").read_text() == "one"
    answer(errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        write_text(tmp_path / "final", "two")
    assert (tmp_path / "final").read_text() == "one"
