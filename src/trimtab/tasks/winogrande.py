"""WinoGrande (debiased): which of two names or things fills the blank (Sakaguchi et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from trimtab.tasks.base import Example, Split
from trimtab.tasks.extraction import option
from trimtab.tasks.sources import Row
from trimtab.tasks.splits import SPLIT_SEED, VALIDATION_SHARE, deal
from trimtab.tasks.stored import StoredTask, letters_and_digits


@dataclass(frozen=True)
class WinoGrande(StoredTask):
    """WinoGrande 1.1 with the debiased train split (method.md, section 8). Prompt, then the completion:

        Please choose the correct answer to fill in the blank to complete the given sentence: {sentence}
        Option1: {option1} Option2: {option2}
        Answer: Option1.

    The published test split (1,767 rows) has no labels, so that the published dev split (1,267) is the test split
    here, and train (9,248) is split 80:20 with seed 42 into train and validation (7,399 / 1,849). Local files:
    `train_debiased.jsonl` and `dev.jsonl`.

    Sentences come in pairs of twins, which differ in a word or two and have opposite answers: 2,011 pairs in train.
    Rows with the same two options are in one split, so no twin of a validation row is learnt. (The `qID`s of the files
    name the pairs, but the hub's rows have none.)
    """

    name: ClassVar[str] = "winogrande"
    version: ClassVar[int] = 2
    # The paper's code stops after 5, of which an answer takes all in SmolLM2's vocabulary. A finer one may need a few
    # more.
    max_new_tokens: ClassVar[int] = 8
    hub_id: ClassVar[str] = "allenai/winogrande"
    hub_config: ClassVar[str | None] = "winogrande_debiased"
    hub_revision: ClassVar[str] = "01e74176c63542e6b0bcb004dcdea22d94fb67b5"
    files: ClassVar[Mapping[str, str]] = {"train": "train_debiased.jsonl", "validation": "dev.jsonl"}

    @property
    def split_note(self) -> str:
        """Which labelled split is scored."""
        return (
            f"the official debiased train split 80:20 by pair of options, seed {SPLIT_SEED}, "
            "test = the official dev split, as the official test split has no labels"
        )

    def splits(self) -> Mapping[Split, Sequence[Example]]:
        """Train and validation from the published train split; test is the published dev split."""
        published = self.published()
        train, validation = deal(published["train"], (1 - VALIDATION_SHARE, VALIDATION_SHARE), _options)
        return {
            "train": [_example(row, "train") for row in train],
            "validation": [_example(row, "train") for row in validation],
            "test": [_example(row, "dev") for row in published["validation"]],
        }

    def parse(self, output: str) -> str | None:
        """The rule `option` of `extraction`."""
        return option(output)


def _options(row: Row) -> frozenset[str]:
    return frozenset(letters_and_digits(row.text(name)) for name in ("option1", "option2"))


def _example(row: Row, origin: str) -> Example:
    answer = row.text("answer")
    if answer not in {"1", "2"}:
        raise row.error(f"'answer' must be '1' or '2', not {answer!r}.")
    sentence, first, second = (row.text(key).strip() for key in ("sentence", "option1", "option2"))
    return Example(
        prompt="Please choose the correct answer to fill in the blank to complete the given sentence: "
        f"{sentence}\nOption1: {first} Option2: {second}\n",
        completion=f"Answer: Option{answer}.",
        label=f"option{answer}",
        id=f"{origin}:{row.number}",
    )
