"""AQuA-RAT: algebra, multiple choice, with a rationale (Ling et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from trimtab.tasks.aqua_substitutes import FLAN, MATHQA, Problem, read_flan, read_mathqa
from trimtab.tasks.base import Example, Split
from trimtab.tasks.extraction import LETTERS, letter
from trimtab.tasks.sources import Row
from trimtab.tasks.stored import StoredTask, letters_and_digits

_QUESTION = "Answer the following multiple-choice math question.\nQuestion: "


@dataclass(frozen=True)
class Aqua(StoredTask):
    """AQuA-RAT, 97,467 / 254 / 254 questions with five options (method.md, section 8). Prompt, then the completion:

        Answer the following multiple-choice math question.
        Question: {question}
        A){first option}
        ...
        E){fifth option}
        {rationale}
        Answer: B.

    Local files: `train.json`, `dev.json` and `test.json`, JSON lines as DeepMind publishes them. Where the large
    `train.json` is missing, its subset in FLAN v2, `train_flan_cot_subset.tsv` (2,728 rows), takes its place. Two
    examples with the same question never are in two splits, whatever their options.

    Attributes:
        mathqa: add MathQA's dev and test rows, `mathqa_dev.json` and `mathqa_test.json` in `data_dir` (7,460), to
            train. MathQA is made from AQuA-RAT: lower-cased, and in tokens.
    """

    mathqa: bool = False

    name: ClassVar[str] = "aqua"
    version: ClassVar[int] = 2
    max_new_tokens: ClassVar[int] = 256
    hub_id: ClassVar[str] = "deepmind/aqua_rat"
    hub_config: ClassVar[str | None] = "raw"
    hub_revision: ClassVar[str] = "33301c6a050c96af81f63cad5562cb5363e88971"
    files: ClassVar[Mapping[str, str]] = {"train": "train.json", "validation": "dev.json", "test": "test.json"}
    optional: ClassVar[frozenset[str]] = frozenset({"train"})

    @property
    def split_note(self) -> str:
        """What train is made of."""
        full = self.data_dir is None or self.local_file(self.files["train"]) is not None
        train = "the published splits" if full else "the published dev and test splits; train = FLAN v2's subset ONLY"
        return f"{train}; train with MathQA's dev and test rows" if self.mathqa else train

    def splits(self) -> Mapping[Split, Sequence[Example]]:
        """The published splits, or what takes the place of train and is added to it."""
        published = self.published()
        if "train" in published:
            train = [_published(row, "train") for row in published["train"]]
        else:
            train = read_flan(self._local(FLAN, f"{self.files['train']} or {FLAN}"))
        for name in MATHQA if self.mathqa else ():
            train += read_mathqa(self._local(name, name))
        return {
            "train": [_example(problem) for problem in train],
            "validation": [_example(_published(row, "dev")) for row in published["validation"]],
            "test": [_example(_published(row, "test")) for row in published["test"]],
        }

    def files_read(self) -> list[Path]:
        """The published files, FLAN's in place of a missing train file, and MathQA's if they are added."""
        names = [] if self.local_file(self.files["train"]) else [FLAN]
        names += MATHQA if self.mathqa else ()
        return [*super().files_read(), *(path for name in names if (path := self.local_file(name)) is not None)]

    def parse(self, output: str) -> str | None:
        """The rule `letter` of `extraction`."""
        return letter(output)

    def overlap_key(self, example: Example) -> str:
        """The letters and digits of the question: copies differ in their options' texts and order."""
        return letters_and_digits(example.prompt.removeprefix(_QUESTION).partition("\nA)")[0])

    def _local(self, name: str, wanted: str) -> Path:
        path = self.local_file(name)
        if path is None:
            raise self.missing_files([wanted])
        return path


def _published(row: Row, origin: str) -> Problem:
    texts = []
    for name, text in zip(LETTERS, row.value("options", list), strict=False):
        if not isinstance(text, str) or not text.startswith(f"{name})"):
            raise row.error(f"an option {name} must be a text that starts with '{name})', not {text!r:.80}")
        texts.append(text[2:].strip())
    return Problem(row, row.text("question"), tuple(texts), row.text("rationale"), row.text("correct"), origin)


def _example(problem: Problem) -> Example:
    row, correct = problem.row, problem.correct.strip().upper()
    if len(problem.options) != len(LETTERS):
        raise row.error(f"{len(problem.options)} options; {len(LETTERS)} are expected.")
    if correct not in tuple(LETTERS):
        raise row.error(f"the answer {problem.correct!r} is not one of the letters {LETTERS}.")
    options = "".join(f"{name}){text}\n" for name, text in zip(LETTERS, problem.options, strict=True))
    return Example(
        prompt=f"{_QUESTION}{problem.question.strip()}\n{options}",
        completion=f"{problem.rationale.strip()}\nAnswer: {correct}.",
        label=correct,
        id=f"{problem.origin}:{row.number}",
    )
