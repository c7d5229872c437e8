"""BoolQ: yes/no questions about a passage of Wikipedia (Clark et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from trimtab.tasks.base import SPLITS, Example, Split
from trimtab.tasks.extraction import boolean
from trimtab.tasks.sources import Row
from trimtab.tasks.splits import SPLIT_SEED, cut, deal
from trimtab.tasks.stored import StoredTask, letters_and_digits

_SHARES = (0.6, 0.2, 0.2)
"""Of train, validation and test where the dev split is all there is."""
_BEGINNING = 60


@dataclass(frozen=True)
class BoolQ(StoredTask):
    """BoolQ (method.md, section 8). Prompt, then the completion:

        Answer the question with a true/false based on the given passage.
        Passage: {passage} Question: {question}
        Answer: True.

    Two splits are published. As in the paper, train is split 80:20 with seed 42 into train and validation
    (7,541 / 1,886), and the official dev split (3,270) is the test split. Local files: `train.jsonl` and
    `dev.jsonl`. Where `train.jsonl` is missing, the dev split alone is split 60:20:20 with seed 42, and a
    passage is in one split only, with those that begin with the same 60 letters and digits; a score on a fifth of dev
    is not the paper's, which `split_note` says.
    """

    name: ClassVar[str] = "boolq"
    version: ClassVar[int] = 2
    max_new_tokens: ClassVar[int] = 10
    hub_id: ClassVar[str] = "google/boolq"
    hub_revision: ClassVar[str] = "35b264d03638db9f4ce671b711558bf7ff0f80d5"
    files: ClassVar[Mapping[str, str]] = {"train": "train.jsonl", "validation": "dev.jsonl"}
    optional: ClassVar[frozenset[str]] = frozenset({"train"})

    @property
    def split_note(self) -> str:
        """Which of the two ways made the splits."""
        if self.data_dir is not None and self.local_file(self.files["train"]) is None:
            return f"the official dev split 60:20:20 by passage, seed {SPLIT_SEED}; NOT the official test split"
        return f"the official train split 80:20 with seed {SPLIT_SEED}, test = the official dev split"

    def splits(self) -> Mapping[Split, Sequence[Example]]:
        """Train and validation from the published train split, or all three from dev alone."""
        published = self.published()
        dev = published["validation"]
        if "train" in published:
            train, validation = cut(published["train"])
            rows: dict[Split, list[Row]] = {"train": train, "validation": validation, "test": dev}
            origin: dict[Split, str] = {"train": "train", "validation": "train", "test": "dev"}
        else:
            rows = dict(zip(SPLITS, deal(dev, _SHARES, _passage), strict=True))
            origin = dict.fromkeys(SPLITS, "dev")
        return {split: [_example(row, origin[split]) for row in rows[split]] for split in rows}

    def parse(self, output: str) -> str | None:
        """The rule `boolean` of `extraction`."""
        return boolean(output)


def _example(row: Row, origin: str) -> Example:
    answer = row.value("answer", bool)
    passage, question = row.text("passage").strip(), row.text("question").strip()
    return Example(
        prompt="Answer the question with a true/false based on the given passage.\n"
        f"Passage: {passage} Question: {question}\n",
        completion=f"Answer: {answer}.",
        label=str(answer).lower(),
        id=f"{origin}:{row.number}",
    )


def _passage(row: Row) -> str:
    """Names a passage: versions of one article's differ in marks, or in words behind its beginning."""
    return letters_and_digits(row.text("passage"))[:_BEGINNING]
