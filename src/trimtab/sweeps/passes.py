"""What the disk says of a pass: its runs, how it has ended so far, and whether anybody can go on with it.

Too many runs in a pass need too much memory, and their process may be killed for it without a word. But a process is
killed for other reasons too, and those say nothing of the size: an interruption counts for nothing, and a kill only if
it comes twice, before the first checkpoint both times.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.files import write_text
from trimtab.training import RunDirectory

KILLS = 2
"""How often a pass of one size may be killed before its first checkpoint until it counts as too large."""


@dataclass(frozen=True)
class Pass:
    """The folder of a group.

    | file | what |
    | --- | --- |
    | `members.json` | the trainings of its runs, by their hashes |
    | `tries.json` | how often it was started without a checkpoint, and whether it has failed |
    | `pass/` | the checkpoints |
    """

    home: Path

    @property
    def directory(self) -> Path:
        """Where the pass is trained."""
        return self.home / "pass"

    @property
    def has_checkpoint(self) -> bool:
        """Whether it can go on from somewhere."""
        return RunDirectory(self.directory).last_checkpoint() is not None

    @property
    def members(self) -> list[str]:
        """The trainings of its runs; none if the folder has just been removed."""
        return list(_read(self.home / "members.json", []))

    @property
    def starts(self) -> int:
        """How often it was started without a checkpoint and not ended by an interruption."""
        return int(_read(self._tries, {}).get("starts", 0))

    @property
    def failed(self) -> bool:
        """Whether it has raised an error, or its process has died too often."""
        return bool(_read(self._tries, {}).get("failed", False))

    @contextmanager
    def started(self, members: list[str]) -> Iterator[None]:
        """Within `with`, the pass of these runs is trained; a process that is killed there leaves a start behind."""
        self.home.mkdir(parents=True, exist_ok=True)
        write_text(self.home / "members.json", json.dumps(members))
        before = self.starts
        if not self.has_checkpoint:
            self._note(before + 1, self.failed)
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            self._note(before, self.failed)
            raise

    def give_up(self) -> None:
        """After an error: this pass is not gone on with, and the next one of its runs is half as large."""
        if self.home.is_dir():
            self._note(self.starts, failed=True)
            shutil.rmtree(self.directory, ignore_errors=True)

    def forget(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.home, ignore_errors=True)

    @property
    def _tries(self) -> Path:
        return self.home / "tries.json"

    def _note(self, starts: int, failed: bool) -> None:
        write_text(self._tries, json.dumps({"starts": starts, "failed": failed}))


def largest(passes: Iterable[Pass], together: int) -> int:
    """How many runs the next pass of a run may have, after the `passes` that it has been in."""
    kills: Counter[int] = Counter()
    limit = together
    for each in passes:
        size = len(each.members)
        if each.failed:
            limit = min(limit, size // 2)
        elif not each.has_checkpoint:
            kills[size] += each.starts
    return max(1, min([limit, *(size // 2 for size, count in kills.items() if count >= KILLS)]))


def is_of_use(one: Pass, runs: Path) -> bool:
    """Whether somebody may still go on with a pass, or learn from its end how large the next one may be.

    Args:
        one: the pass.
        runs: the folder of the sweep's trainings.
    """
    waiting = [training for training in one.members if not _ended(runs / training)]
    gone = any(_ended(runs / training) and not _has_weights(runs / training) for training in one.members)
    return bool(waiting) and not (gone and one.has_checkpoint)


def _ended(home: Path) -> bool:
    return RunDirectory(home / "training").finished or any(home.glob("*.failed.json"))


def _has_weights(home: Path) -> bool:
    training = RunDirectory(home / "training")
    return training.finished and training.weights.is_dir()


def _read(path: Path, otherwise: Any) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return otherwise
