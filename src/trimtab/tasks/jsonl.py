"""The user's own data: a file of JSON lines with prompts and completions, or with chat messages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from trimtab.registry import unknown
from trimtab.tasks.base import Example, Message, Split, Task
from trimtab.tasks.sources import Row, read_jsonl
from trimtab.tasks.stored import in_random_order, without_prompts_of

SUFFIXES = (".jsonl", ".jsonl.gz")
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class JsonlTask(Task):
    """A file of JSON lines; each line is one of

        {"prompt": "...", "completion": "..."}
        {"messages": [{"role": "system" | "user" | "assistant", "content": "..."}, ...]}

    A prompt and its completion are joined as they stand: a prompt best ends in a newline (see `Example`). Of
    messages the last, the assistant's, is the completion; the others are the prompt, which models without a
    chat template read as `User: ...` lines. Other keys of a line are ignored. The whole file is checked
    before the first example is given.

    Train is the file. Test is `test` if given, else the same file, for `trimtab eval` on a file. Validation
    must be given. Lines of train whose prompt is in the validation or test file are left out.

    Attributes:
        path: the file; `.jsonl`, or gzipped `.jsonl.gz`.
        validation: a second file for the validation split.
        test: a file for the test split.
    """

    path: str | Path
    validation: str | Path | None = None
    test: str | Path | None = None

    name: ClassVar[str] = "jsonl"
    max_new_tokens: ClassVar[int] = 256

    @property
    def split_note(self) -> str:
        """Which file is which split."""
        test = self.test or f"{self.path} itself: a score of memory if it was trained on"
        return f"train = {self.path}, validation = {self.validation or 'none'}, test = {test}"

    def examples(self, split: Split, seed: int) -> Iterator[Example]:
        """The lines of the split's file in an order drawn from `seed`.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a bad line, named with its number; or validation without a file for it.
        """
        held_out = {"validation": self.validation, "test": self.test}
        if split == "validation" and self.validation is None:
            raise ValueError(f"{self.path} has no validation split: give one with validation=<another file>.")
        found = _read(held_out.get(split) or self.path)
        if split == "train":
            others = [example for path in held_out.values() if path for example in _read(path)]
            found = without_prompts_of(found, others, str(self.path))
        return iter(in_random_order(found, seed))

    def parse(self, output: str) -> str | None:
        """The whole output without the white space around it; None if nothing is left."""
        return output.strip() or None


def _read(path: str | Path) -> list[Example]:
    return [_example(row) for row in read_jsonl(Path(path))]


def _example(row: Row) -> Example:
    place = f"{Path(row.source).name}:{row.number}"
    if "messages" not in row.fields:
        prompt, completion = row.text("prompt"), row.text("completion")
        return Example(prompt=prompt, completion=completion, label=completion.strip(), id=place)
    if row.fields.keys() & {"prompt", "completion"}:
        raise row.error("both 'messages' and 'prompt' or 'completion': give one of the two forms.")
    messages = tuple(_message(row, message) for message in row.value("messages", list))
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise row.error("'messages' must be two or more, of which the last is the assistant's.")
    *given, answer = messages
    prompt = "".join(f"{message['role'].capitalize()}: {message['content']}\n" for message in given)
    return Example(
        prompt=f"{prompt}Assistant:\n",
        completion=answer["content"],
        label=answer["content"].strip(),
        id=place,
        messages=messages,
    )


def _message(row: Row, message: object) -> Message:
    fields = row.nested(message, "a message")
    role = fields.text("role")
    if role not in ROLES:
        raise row.error(str(unknown("role", role, ROLES)))
    return Message(role=role, content=fields.text("content"))
