"""What every task has in common: examples of a split, and a score for an output."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import ClassVar, Literal, TypedDict, get_args

from trimtab.registry import check_choice

logger = logging.getLogger(__name__)

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


class Message(TypedDict):
    """One turn of a conversation, as chat templates read it."""

    role: str
    content: str


@dataclass(frozen=True)
class Example:
    """One thing to learn or to be scored on.

    The model reads `prompt + completion`. In the built-in tasks a prompt ends in exactly one newline and a
    completion starts with a visible character. Byte-level tokenisers then cut `prompt + completion` at the
    seam as they cut `prompt` alone: the tokens before the loss are those that the model sees when asked.
    A newline at the START of the completion would not do: Llama 3 and Qwen join it to the punctuation before
    it ("]\\n" is one token). A space at the END of a prompt would not do either: most vocabularies put it
    into the next word.

    Attributes:
        prompt: what is given.
        completion: what is to be learnt after it; the loss is on this text only.
        label: the canonical answer ("7", "B", "true"), what `Task.parse` returns for a right output.
        id: names the example within its task, the same in every run.
        messages: the conversation that `prompt` and `completion` render as plain text, the last message being
            the completion; None where there is no conversation. For models with a chat template.
    """

    prompt: str
    completion: str
    label: str
    id: str
    messages: tuple[Message, ...] | None = field(default=None, hash=False)


class Task(ABC):
    """Examples and a score.

    A task is one file in this folder: a frozen dataclass with a `name`, whose fields are its options.
    """

    name: ClassVar[str]
    """The name on the command line and in recipes; unique among the files of this folder."""

    max_new_tokens: ClassVar[int]
    """Tokens that an answer may take when it is generated."""

    version: ClassVar[int] = 1
    """Raised by one when splits or answers' rules change, so that a sweep takes no older result for a new one."""

    @abstractmethod
    def examples(self, split: Split, seed: int) -> Iterator[Example]:
        """All examples of a split, in an order that depends on `seed` alone."""

    @abstractmethod
    def parse(self, output: str) -> str | None:
        """The answer in a model's output (the new text only, without the prompt); None where there is none.

        Never raises, whatever the string.
        """

    def is_correct(self, parsed: str | None, label: str) -> bool:
        """Whether a parsed answer is right: here, whether it is the label. None never is."""
        return parsed is not None and parsed == label

    @property
    def split_note(self) -> str:
        """Where the splits come from, in one line, for logs and results."""
        return "the published splits"

    def load(self, split: Split, *, limit: int | None = None, seed: int = 0) -> list[Example]:
        """The first `limit` examples of a split.

        Args:
            split: "train", "validation" or "test".
            limit: at most this many examples, a prefix of the same sequence for every limit; None: all.
            seed: the order of the examples, so that a limit keeps a random part (ListOps: which are drawn).

        Raises:
            ValueError: no such split, a limit below 1, or a split without examples.
            OSError: the data is not there; the message says what to do.
        """
        check_choice("split", split, SPLITS)
        if limit is not None and (not isinstance(limit, int) or limit < 1):
            raise ValueError(f"limit must be a whole number of at least 1, or None for all; got {limit!r}.")
        loaded = list(islice(self.examples(split, seed), limit))
        if not loaded:
            raise ValueError(f"Task {self.name!r} has no examples in its {split} split ({self.split_note}).")
        logger.info("%s, %s: %d examples (%s)", self.name, split, len(loaded), self.split_note)
        return loaded
