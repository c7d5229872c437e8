"""The configuration of a run: all that its numbers depend on, and the hash that names it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from trimtab.methods import Method
from trimtab.tasks import Split, Task
from trimtab.tasks.stored import StoredTask
from trimtab.training import TrainingSettings

HASH_DIGITS = 16
_ABOUT_A_METHOD = ("name", "description", "learning_rates")
"""What a method says about itself; the rest is what it does."""
_NO_INFLUENCE = ("device", "checkpoint_every", "report_to")


@dataclass(frozen=True)
class Configuration:
    """One run: a method trained on a task and scored on a split of it.

    `hash` names the run and `training_hash` what was trained: runs that differ only in the split that is scored share
    a training. Both are made of what the numbers depend on; the label and the versions of packages are not among it.

    Attributes:
        model: as in the recipe.
        task_name: as in the recipe.
        task: the task.
        method: the method, at this run's learning rate.
        label: what the recipe calls the method.
        training: batches, length and seed.
        split: what is scored.
        examples: how many examples of it; None: all.
        batch_tokens: tokens in a batch of answers.
    """

    model: str
    task_name: str
    task: Task
    method: Method
    label: str
    training: TrainingSettings
    split: Split
    examples: int | None
    batch_tokens: int

    @property
    def seed(self) -> int:
        """Of the adapter's start and of the order of the batches."""
        return self.training.seed

    @property
    def learning_rate(self) -> float:
        """AdamW's, at its peak."""
        return self.method.learning_rate

    def describe(self) -> str:
        """The run in a line, as in "post-block, listops-small, rate 0.002, seed 0: validation"."""
        rate = f"rate {self.learning_rate:g}"
        return f"{self.label}, {self.task_name}, {self.model}, {rate}, seed {self.seed}: {self.split}"

    @cached_property
    def trained(self) -> dict[str, Any]:
        """The part that the trained weights depend on."""
        task = cast(Any, self.task)
        options = {each.name: getattr(task, each.name) for each in fields(task)}
        method = {key: value for key, value in self.method.to_dict().items() if key not in _ABOUT_A_METHOD}
        training = {key: value for key, value in asdict(self.training).items() if key not in _NO_INFLUENCE}
        content = {
            "model": self.model,
            "task": {
                "name": self.task_name,
                **({} if task.version == 1 else {"version": task.version}),  # a first version is not written down
                **options,
                "files": _file_hashes(task, [self.task_name, *options.values()]),
            },
            "method": method,
            "training": training,
        }
        return cast(dict[str, Any], json.loads(canonical_json(content)))

    def to_dict(self) -> dict[str, Any]:
        """All that the numbers depend on, as plain values."""
        scored = {"split": self.split, "examples": self.examples, "batch_tokens": self.batch_tokens}
        return {**self.trained, "evaluation": scored}

    @cached_property
    def training_hash(self) -> str:
        """Names what was trained."""
        return content_hash(self.trained)

    @cached_property
    def hash(self) -> str:
        """Names the run."""
        return content_hash(self.to_dict())


def content_hash(content: dict[str, Any]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of `canonical_json(content)`."""
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()[:HASH_DIGITS]


def canonical_json(content: Any) -> str:
    """JSON that is the same for equal content: sorted keys, no spaces, 1.0 written as 1, paths and the like as text.

    Raises:
        ValueError: a number that is not finite.
    """
    return json.dumps(_plain(content), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _plain(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(key): _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    if isinstance(content, set | frozenset):
        return sorted(_plain(value) for value in content)
    if isinstance(content, float) and content.is_integer():
        return int(content)
    return content if content is None or isinstance(content, bool | int | float | str) else str(content)


def _file_hashes(task: Task, values: list[Any]) -> dict[str, str]:
    """The content of the files that a task reads: other data under the same name is another run.

    What a task of the user's own reads in its `data_dir` is not known: all files there count.
    """
    named = {Path(value) for value in values if isinstance(value, str | Path) and Path(value).suffix}
    folder = getattr(task, "data_dir", None)
    if isinstance(task, StoredTask):
        named |= set(task.files_read())
    elif folder is not None and Path(folder).is_dir():
        named |= set(Path(folder).iterdir())
    paths = [str(path) for path in named if path.is_file()]
    return {path: hashlib.sha256(Path(path).read_bytes()).hexdigest()[:HASH_DIGITS] for path in sorted(paths)}
