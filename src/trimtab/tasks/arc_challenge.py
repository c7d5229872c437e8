"""ARC-Challenge: grade-school science, multiple choice (Clark et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import ClassVar

from trimtab.tasks.base import Example, Split
from trimtab.tasks.extraction import LETTERS, letter, until_answer
from trimtab.tasks.sources import Row
from trimtab.tasks.stored import StoredTask, letters_and_digits

_QUESTION = "Answer the following multiple-choice question.\nQuestion: "


@dataclass(frozen=True)
class ArcChallenge(StoredTask):
    """ARC-Challenge, 1,112 / 297 / 1,172 questions with 3 to 5 options (method.md, section 8).

    Prompt, one option a line, then the completion:

        Answer the following multiple-choice question.
        Question: {question}
        (A) {first option}
        (B) {second option}
        ...
        Answer: (B) {second option}.

    The completion's full stop is left out where the option ends in a mark of its own. Published labels 1-4
    become A-D. Local files: `ARC-Challenge-{Train,Dev,Test}.jsonl` as the Allen Institute publishes them. Of their
    1,119 and 299 rows 7 and 2 ask what a row of another split asks, with other options, and are left out.
    """

    name: ClassVar[str] = "arc_challenge"
    version: ClassVar[int] = 2
    max_new_tokens: ClassVar[int] = 100
    hub_id: ClassVar[str] = "allenai/ai2_arc"
    hub_config: ClassVar[str | None] = "ARC-Challenge"
    hub_revision: ClassVar[str] = "210d026faf9955653af8916fad021475a3f00453"
    files: ClassVar[Mapping[str, str]] = {
        "train": "ARC-Challenge-Train.jsonl",
        "validation": "ARC-Challenge-Dev.jsonl",
        "test": "ARC-Challenge-Test.jsonl",
    }

    def splits(self) -> Mapping[Split, Sequence[Example]]:
        """The three published splits."""
        rows = self.published()
        return {
            "train": [_example(row) for row in rows["train"]],
            "validation": [_example(row) for row in rows["validation"]],
            "test": [_example(row) for row in rows["test"]],
        }

    def parse(self, output: str) -> str | None:
        """The rule `letter` of `extraction`, up to the first line with an answer."""
        return letter(until_answer(output))

    def overlap_key(self, example: Example) -> str:
        """The letters and digits of the question: copies differ in the words of an option."""
        return letters_and_digits(example.prompt.removeprefix(_QUESTION).partition("\n(A) ")[0])


def _example(row: Row) -> Example:
    """From a row of the hub {question, choices: {text, label}} or of a file {question: {stem, choices}}."""
    if isinstance(row.fields.get("question"), Mapping):
        question = row.nested(row.fields["question"], "'question'")
        stem = question.text("stem")
        choices = question.value("choices", list)
    else:
        stem = row.text("question")
        columns = row.nested(row.value("choices", dict), "'choices'")
        pairs = zip_longest(columns.value("label", list), columns.value("text", list))
        choices = [{"label": label, "text": text} for label, text in pairs]
    if not 2 <= len(choices) <= len(LETTERS):
        raise row.error(f"{len(choices)} choices; 2 to {len(LETTERS)} are expected.")
    rows = [row.nested(choice, "a choice") for choice in choices]
    labels, texts = [choice.text("label") for choice in rows], [choice.text("text") for choice in rows]
    key = row.text("answerKey")
    if labels.count(key) != 1:
        raise row.error(f"the answer {key!r} is not one of the labels {labels}.")
    answer = labels.index(key)
    options = "".join(f"({name}) {text}\n" for name, text in zip(LETTERS, texts, strict=False))
    ending = "" if texts[answer].endswith((".", "!", "?")) else "."
    return Example(
        prompt=f"{_QUESTION}{stem}\n{options}",
        completion=f"Answer: ({LETTERS[answer]}) {texts[answer]}{ending}",
        label=LETTERS[answer],
        id=row.text("id"),
    )
