"""Tasks whose data is published: read from the Hugging Face hub or from local files."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from trimtab.tasks.base import Example
from trimtab.tasks.sources import Row, read_hub, read_jsonl
from trimtab.tasks.splits import SplitTask


@dataclass(frozen=True)
class StoredTask(SplitTask):
    """A task with published data; `splits` makes examples of what `published` reads.

    Attributes:
        data_dir: folder with the published files (each may be gzipped); None: the Hugging Face hub.
    """

    data_dir: str | Path | None = None

    hub_id: ClassVar[str]
    hub_config: ClassVar[str | None] = None
    hub_revision: ClassVar[str]
    files: ClassVar[Mapping[str, str]]
    """Published split, by the hub's name -> name of its file in `data_dir`."""
    optional: ClassVar[frozenset[str]] = frozenset()
    """Published splits that `data_dir` may lack."""

    def published(self) -> dict[str, list[Row]]:
        """The rows of every published split, by the hub's name of the split.

        Raises:
            FileNotFoundError: `data_dir` or a file in it is missing; says which.
            ConnectionError: the hub cannot be reached; says how to give `data_dir`.
        """
        if self.data_dir is None:
            otherwise = f"Without it, give data_dir=<a folder with {', '.join(self.files.values())}>."
            return read_hub(self.hub_id, self.hub_config, self.hub_revision, otherwise)
        found = {split: self.local_file(name) for split, name in self.files.items()}
        missing = [self.files[split] for split, path in found.items() if not path and split not in self.optional]
        if missing:
            raise self.missing_files(missing)
        return {split: read_jsonl(path) for split, path in found.items() if path is not None}

    def local_file(self, name: str) -> Path | None:
        """The file of this name, or gzipped with `.gz` behind it, in `data_dir`; None if it is not there."""
        if self.data_dir is None:
            return None
        plain = Path(self.data_dir) / name
        candidates = (plain, plain.with_name(plain.name + ".gz"))
        return next((path for path in candidates if path.is_file()), None)

    def files_read(self) -> list[Path]:
        """The files in `data_dir` that examples are made of; the others there change no number."""
        return [path for name in self.files.values() if (path := self.local_file(name)) is not None]

    def missing_files(self, names: list[str]) -> FileNotFoundError:
        """The error for files that `data_dir` lacks."""
        return FileNotFoundError(
            f"Task {self.name!r} needs {', '.join(names)} (or with .gz) in data_dir={self.data_dir}."
        )

    def overlap_key(self, example: Example) -> str:
        """The letters and digits of the prompt: copies of published data differ in case, marks and white space."""
        return letters_and_digits(example.prompt)


def letters_and_digits(text: str) -> str:
    """What is left of a text without case, marks and white space, in Unicode's compatible form."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", text).casefold()))
