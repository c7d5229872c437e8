"""Files that are there completely or not at all, and room on the disk for them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`: under a temporary name first, so that a reader never sees half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A directory to fill, which takes its name `path` only when the block ends without an error.

    When two processes fill the same `path` at once, the first one wins and the other's work is dropped. A
    caller that wants to replace what is there removes it first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o755)  # mkdtemp lets nobody else read
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
