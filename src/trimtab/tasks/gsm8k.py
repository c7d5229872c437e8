"""GSM8K: grade-school word problems, solved step by step (Cobbe et al. 2021)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from trimtab.tasks.base import Example, Split
from trimtab.tasks.extraction import number
from trimtab.tasks.sources import Row
from trimtab.tasks.splits import SPLIT_SEED, cut
from trimtab.tasks.stored import StoredTask

_ANNOTATION = re.compile(r"<<[^<>\n]*>>")


@dataclass(frozen=True)
class Gsm8k(StoredTask):
    """GSM8K (method.md, section 8). Prompt, then the completion:

        {question}
        {the published solution}
        Answer: 72

    Two splits are published. As in the paper, train is split 80:20 with seed 42 into train and validation
    (5,978 / 1,495), and test (1,319) stays. A number is right if it is the published one: "$1,080.00" is "1080".
    Local files: `train.jsonl` and `test.jsonl`.

    Attributes:
        annotations: keep the calculator annotations of the published solutions, such as <<48/2=24>>, as the paper's
            code does; without them a solution is shorter.
    """

    annotations: bool = True

    name: ClassVar[str] = "gsm8k"
    version: ClassVar[int] = 2
    # The paper's code stops after 100, which cuts off 64 % of the test split's published solutions in SmolLM2's
    # vocabulary; 320 cuts off 0.5 %.
    max_new_tokens: ClassVar[int] = 320
    hub_id: ClassVar[str] = "openai/gsm8k"
    hub_config: ClassVar[str | None] = "main"
    hub_revision: ClassVar[str] = "740312add88f781978c0658806c59bc2815b9866"
    files: ClassVar[Mapping[str, str]] = {"train": "train.jsonl", "test": "test.jsonl"}

    @property
    def split_note(self) -> str:
        """Where validation comes from."""
        return f"the official train split 80:20 with seed {SPLIT_SEED}, test = the official test split"

    def splits(self) -> Mapping[Split, Sequence[Example]]:
        """Train and validation from the published train split; test as published."""
        published = self.published()
        train, validation = cut(published["train"])
        return {
            "train": [self._example(row, "train") for row in train],
            "validation": [self._example(row, "train") for row in validation],
            "test": [self._example(row, "test") for row in published["test"]],
        }

    def parse(self, output: str) -> str | None:
        """The rule `number` of `extraction`."""
        return number(output)

    def _example(self, row: Row, origin: str) -> Example:
        solution, mark, final = row.text("answer").rpartition("####")
        label = number(final)
        if not mark or not solution.strip() or label is None:
            raise row.error("'answer' must be a solution, '####' and a number.")
        if not self.annotations:
            solution = _ANNOTATION.sub("", solution)
        return Example(
            prompt=f"{row.text('question').strip()}\n",
            completion=f"{solution.strip()}\nAnswer: {final.strip()}",
            label=label,
            id=f"{origin}:{row.number}",
        )
