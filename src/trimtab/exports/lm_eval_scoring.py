"""What an exported task folder does inside lm-evaluation-harness: gives the prompts, reads answers, scores them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from trimtab.tasks import JsonlTask, Task, get_task
from trimtab.tasks.python_file import SUFFIX

PROMPTS = "prompts.jsonl"
DESCRIPTION = "task.json"
SPLIT = "test"
METRIC = "acc"


class Scoring:
    """The functions that the YAML of an exported task names, for the task in its folder."""

    def __init__(self, folder: Path) -> None:
        """Find the task; if it is a Python file, its copy in `folder` is run."""
        self.folder = folder
        self.task = _task(folder, **json.loads((folder / DESCRIPTION).read_text(encoding="utf-8")))

    def load(self, **_: Any) -> DatasetDict:
        """The examples, whatever their split is with us, as the split `test`.

        Read here and not by `datasets`, which takes a column of texts that look like dates for dates.
        """
        lines = (self.folder / PROMPTS).read_text(encoding="utf-8").split("\n")
        return DatasetDict({SPLIT: Dataset.from_list([json.loads(line) for line in lines if line])})

    def parse(self, responses: Sequence[Sequence[str]], documents: Any) -> list[list[str | None]]:
        """`Task.parse` of every response: a filter of lm-evaluation-harness."""
        return [[self.task.parse(response) for response in each] for each in responses]

    def score(self, document: dict[str, str], answers: Sequence[str | None]) -> dict[str, float]:
        """1 if the answer is right by `Task.is_correct`, else 0."""
        return {METRIC: float(self.task.is_correct(answers[0], document["label"]))}


def _task(folder: Path, name: str, options: dict[str, Any]) -> Task:
    if name == JsonlTask.name:  # whose files need not be here: only its rule is wanted
        return JsonlTask(**options)
    return get_task(str(folder / name) if name.endswith(SUFFIX) else name, **options)
