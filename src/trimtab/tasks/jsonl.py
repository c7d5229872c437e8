"""The user's own data: a file of JSON lines with prompts and completions, or with chat messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeGuard

from trimtab.registry import unknown
from trimtab.tasks.base import Example, Message, Split
from trimtab.tasks.extraction import Rule, rule
from trimtab.tasks.sources import Row, read_jsonl
from trimtab.tasks.splits import SPLIT_SEED, SplitTask, cut, in_random_order

SUFFIXES = (".jsonl", ".jsonl.gz")
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class JsonlTask(SplitTask):
    """A file of JSON lines; each line is one of

        {"prompt": "...", "completion": "..."}
        {"messages": [{"role": "system" | "user" | "assistant", "content": "..."}, ...]}

    A prompt and its completion are joined as they stand: a prompt best ends in a newline (see `Example`). Of
    messages the last, the assistant's, is the completion; the others are the prompt, which models without a
    chat template read as `User: ...` lines. Other keys of a line are ignored. The whole file is checked
    before the first example is given.

    Test is `test` if given, else the same file, for `trimtab eval` on a file. Validation must be given. A share
    instead of a file is cut from the first file at random, with seed 42, and no longer in train. Lines of train whose
    prompt is in validation or test are left out, and lines of validation whose prompt is in test.

    Attributes:
        path: the file; `.jsonl`, or gzipped `.jsonl.gz`.
        validation: a second file for the validation split, or a share between 0 and 1.
        test: a file for the test split, or a share.
        answer: the rule that finds the answer in an output, and in a completion: a name of `extraction.RULES`, or a
            regular expression with one group.
        max_new_tokens: tokens that an answer may take when it is generated.
    """

    path: str | Path
    validation: str | Path | float | None = None
    test: str | Path | float | None = None
    answer: str = "text"
    max_new_tokens: int = 256  # type: ignore[misc]  # elsewhere of the class; here the user's to choose

    name: ClassVar[str] = "jsonl"
    version: ClassVar[int] = 2  # of the answer rules

    def __post_init__(self) -> None:
        """Refuse options that cannot be meant, before a file is read."""
        if not isinstance(self.answer, str):
            raise ValueError(f"{self.path}: answer must be a rule's name or a regular expression, not {self.answer!r}.")
        rule(self.answer)
        limit = self.max_new_tokens
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise ValueError(f"{self.path}: max_new_tokens must be a whole number of at least 1, not {limit!r}.")
        for option in ("validation", "test"):
            value = getattr(self, option)
            if not (value is None or isinstance(value, str | Path) or _is_share(value)):
                raise ValueError(f"{self.path}: {option} must be a file or a share between 0 and 1, not {value!r}.")
        if sum(value for value in (self.validation, self.test) if _is_share(value)) >= 1:
            raise ValueError(f"{self.path}: the shares of validation and test leave nothing to train on.")

    @property
    def split_note(self) -> str:
        """Which file, or share of it, is which split."""
        test = "the file itself: a score of memory if it was trained on" if self.test is None else _words(self.test)
        validation = "none" if self.validation is None else _words(self.validation)
        return f"train = {self.path}, validation = {validation}, test = {test}"

    def splits(self) -> Mapping[Split, Sequence[Example]]:
        """What is in the files, or cut from the first one."""
        rest = self._read(self.path)
        found: dict[Split, list[Example]] = {}
        whole = 1.0
        held_out: dict[Split, str | Path | float | None] = {"test": self.test, "validation": self.validation}
        for split, given in held_out.items():
            if given is None:
                found[split] = []
            elif isinstance(given, str | Path):
                found[split] = self._read(given)
            else:
                rest, found[split] = cut(rest, given / whole)
                whole -= given
        return {**found, "train": rest}

    def examples(self, split: Split, seed: int) -> Iterator[Example]:
        """The lines of the split in an order drawn from `seed`.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a bad line, named with its number; or validation without a file or share for it.
        """
        if split == "validation" and self.validation is None:
            raise ValueError(
                f"{self.path} has no validation split: give one with validation=<another file>, or with a share "
                "of this one such as validation=0.2."
            )
        if split == "test" and self.test is None:
            return iter(in_random_order(self._read(self.path), seed))
        return super().examples(split, seed)

    def parse(self, output: str) -> str | None:
        """The answer by the rule `answer`."""
        return rule(self.answer)(output)

    def _read(self, path: str | Path) -> list[Example]:
        return [_example(row, rule(self.answer)) for row in read_jsonl(Path(path))]


def _is_share(value: object) -> TypeGuard[float]:
    return isinstance(value, float) and 0 < value < 1


def _words(given: str | Path | float) -> str:
    return f"{given:.0%} of it, seed {SPLIT_SEED}" if isinstance(given, float) else str(given)


def _example(row: Row, answer: Rule) -> Example:
    messages: tuple[Message, ...] | None = None
    if "messages" in row.fields:
        prompt, completion, messages = _conversation(row)
    else:
        prompt, completion = row.text("prompt"), row.text("completion")
    label = answer(completion)
    if label is None:
        raise row.error(f"the answer rule finds no answer in the completion: {completion!r:.80}")
    return Example(prompt, completion, label, id=f"{Path(row.source).name}:{row.number}", messages=messages)


def _conversation(row: Row) -> tuple[str, str, tuple[Message, ...]]:
    if row.fields.keys() & {"prompt", "completion"}:
        raise row.error("both 'messages' and 'prompt' or 'completion': give one of the two forms.")
    messages = tuple(_message(row, message) for message in row.value("messages", list))
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise row.error("'messages' must be two or more, of which the last is the assistant's.")
    *given, answer = messages
    prompt = "".join(f"{message['role'].capitalize()}: {message['content']}\n" for message in given)
    return f"{prompt}Assistant:\n", answer["content"], messages


def _message(row: Row, message: object) -> Message:
    fields = row.nested(message, "a message")
    role = fields.text("role")
    if role not in ROLES:
        raise row.error(str(unknown("role", role, ROLES)))
    return Message(role=role, content=fields.text("content"))
