"""Tasks whose data is published: read from the hub or from local files, split, and free of overlaps."""

from __future__ import annotations

import logging
import random
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

from trimtab.tasks.base import Example, Split, Task
from trimtab.tasks.sources import Row, read_hub, read_jsonl

T = TypeVar("T")
logger = logging.getLogger(__name__)

SPLIT_SEED = 42
"""The paper's seed for splits of its own making (appendix F.1); not the seed of a run."""


@dataclass(frozen=True)
class StoredTask(Task):
    """A task with published data.

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

    @abstractmethod
    def splits(self) -> Mapping[Split, Sequence[Example]]:
        """Train, validation and test, each in a fixed order; made from `published()`."""

    def published(self) -> dict[str, list[Row]]:
        """The rows of every published split, by the hub's name of the split.

        Raises:
            FileNotFoundError: `data_dir` or a file in it is missing; says which.
            ConnectionError: the hub cannot be reached; says how to give `data_dir`.
        """
        if self.data_dir is None:
            otherwise = f"Without it, give data_dir=<a folder with {', '.join(self.files.values())}>."
            return read_hub(self.hub_id, self.hub_config, self.hub_revision, otherwise)
        found = {split: self.local_file(split) for split in self.files}
        missing = [self.files[split] for split, path in found.items() if not path and split not in self.optional]
        if missing:
            raise FileNotFoundError(
                f"Task {self.name!r} needs {', '.join(missing)} (or with .gz) in data_dir={self.data_dir}."
            )
        return {split: read_jsonl(path) for split, path in found.items() if path is not None}

    def local_file(self, split: str) -> Path | None:
        """The file of a published split in `data_dir`; None if it is not there."""
        if self.data_dir is None:
            return None
        plain = Path(self.data_dir) / self.files[split]
        candidates = (plain, plain.with_name(plain.name + ".gz"))
        return next((path for path in candidates if path.is_file()), None)

    def examples(self, split: Split, seed: int) -> Iterator[Example]:
        """The split in an order drawn from `seed`; what is held out never is in train."""
        splits = self.splits()
        chosen = splits[split]
        if split == "train":
            chosen = without_prompts_of(chosen, [*splits["validation"], *splits["test"]], self.name)
        return iter(in_random_order(chosen, seed))


def in_random_order(items: Sequence[T], seed: int) -> list[T]:
    """All items in an order that depends on `seed` alone."""
    return random.Random(seed).sample(items, len(items))


def without_prompts_of(train: Iterable[Example], held_out: Iterable[Example], name: str) -> list[Example]:
    """The training examples whose prompt is not held out: no model is scored on what it has learnt."""
    known = {example.prompt for example in held_out}
    kept, removed = [], 0
    for example in train:
        if example.prompt in known:
            removed += 1
        else:
            kept.append(example)
    if removed:
        logger.warning("%s: %d training examples removed, as their prompts are held out", name, removed)
    return kept


def validation_from_train(rows: Sequence[T]) -> tuple[list[T], list[T]]:
    """Published training rows as (train, validation), 80:20 with seed 42, where two splits are published.

    By `datasets.Dataset.train_test_split`: the paper (appendix F.1) gives ratio and seed, not the function.
    """
    from datasets import Dataset

    indices = Dataset.from_dict({"row": list(range(len(rows)))}).train_test_split(test_size=0.2, seed=SPLIT_SEED)
    return [rows[i] for i in indices["train"]["row"]], [rows[i] for i in indices["test"]["row"]]
