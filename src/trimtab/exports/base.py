"""What exports have in common: something of ours, written so that another program reads it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from trimtab.tasks import Split, Task


@dataclass(frozen=True)
class Source:
    """What is exported; each format takes a part of it.

    Attributes:
        adapter: a directory with a saved adapter.
        base: name or path of the model that the adapter is for, as in `load_model`.
        task: the task.
        split: which of its examples.
        examples: how many of them; None: all.
        data_seed: which ones, as in `Task.load`.
    """

    adapter: Path | None = None
    base: str | None = None
    task: Task | None = None
    split: Split = "test"
    examples: int | None = None
    data_seed: int = 0


class Export(ABC):
    """A format that another program reads."""

    name: ClassVar[str]
    """The name on the command line; unique among the files of this folder."""

    of: ClassVar[str]
    """The field of `Source` that it writes: "adapter" or "task"."""

    suffix: ClassVar[str] = ""
    """How the name of its file ends; empty: it is a directory."""

    @abstractmethod
    def write(self, source: Source, out: Path) -> str:
        """Write it to `out` and return, in a line or two, what can be done with it now.

        Raises:
            ValueError: this cannot be expressed in the format, or `out` has not the format's suffix.
            FileExistsError: something is there.
        """

    def check(self, source: Source, out: Path) -> None:
        """What every format refuses, before anything is read.

        Raises:
            ValueError: the source lacks what is exported, or `out` has not the format's suffix.
            FileExistsError: something is there.
        """
        if getattr(source, self.of) is None:
            article = {"a": "an"}.get(self.of[0], "a")
            raise ValueError(f"The format {self.name!r} is of {article} {self.of}: give --{self.of}.")
        if out.suffix != self.suffix and self.suffix:
            raise ValueError(f"The format {self.name!r} is a file whose name ends in {self.suffix}, not {out.name!r}.")
        if out.exists():
            raise FileExistsError(f"{out} is there already. Choose another --out.")
