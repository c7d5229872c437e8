"""Files that are there completely or not at all, also after a power cut, and room on the disk for them."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_CANNOT_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
"""What file systems answer that have no order to write a directory to the disk."""


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in UTF-8, as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`: under a temporary name first, so that a reader never sees half a file.

    It is on the disk before it takes its name: otherwise a power cut can leave an empty file of this name.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    _sync(temporary)
    temporary.replace(path)
    _sync(path.parent)


def read_json_lines(path: Path) -> list[Any]:
    """The values of a file that has one a line, as JSON.

    Not by `str.splitlines`: it also ends a line at U+2028, U+2029 and U+0085, which JSON may have inside a string.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is not JSON.
    """
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A directory to fill, which takes its name `path` only when the block ends without an error.

    When two processes fill the same `path` at once, the first one wins and the other's work is dropped. A
    caller that wants to replace what is there removes it first. As with `write_text`, all is on the disk by then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o755)  # mkdtemp lets nobody else read
        for filled in (*temporary.rglob("*"), temporary):
            _sync(filled)
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():
                raise
        _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync(path: Path) -> None:
    """Wait until the disk holds a file's content, or a directory's names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(handle)


def require_free_disk(path: Path, needed: int, purpose: str) -> None:
    """Raise an error when the file system of `path` has less than `needed` bytes free.

    Args:
        path: where something will be written; it need not exist yet.
        needed: an estimate in bytes.
        purpose: what will be written, for the message.

    Raises:
        OSError: there is not enough room.
    """
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise OSError(
            f"{purpose} needs about {needed / 1e6:,.0f} MB in {path}, but only {free / 1e6:,.0f} MB are free."
        )
