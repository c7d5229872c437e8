"""Texts that an adapter was not trained on: those that come with trimtab, a file, or the prompts of a task."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from trimtab.tasks import get_task
from trimtab.tasks.sources import read_jsonl

TEXT_SUFFIXES = (".txt", ".jsonl", ".jsonl.gz")
_SHIPPED = "unrelated_text.jsonl"


def unrelated_texts() -> list[str]:
    """Paragraphs of many kinds, in English: stories, letters, recipes, science, minutes, a program.

    They were written for trimtab, so that no model has been trained on them before.
    """
    with as_file(files("trimtab.analysis") / _SHIPPED) as path:
        return [row.text("text") for row in read_jsonl(path)]


def read_texts(source: str | None, limit: int) -> list[str]:
    """Texts by the name of their source.

    Args:
        source: None for those of `unrelated_texts`; a `.txt` file, whose texts are its paragraphs (blank lines between
            them); a `.jsonl` file with "text" or "prompt" on each line; or a task, whose validation prompts are taken.
        limit: at most this many.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no such task, a line without a text, or no text at all.
    """
    if source is None:
        return unrelated_texts()[:limit]
    if not source.endswith(TEXT_SUFFIXES):
        return [example.prompt for example in get_task(source).load("validation", limit=limit)]
    path = Path(source)
    if path.suffix != ".txt":
        return [row.text("text" if "text" in row.fields else "prompt") for row in read_jsonl(path)[:limit]]
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    lines = (line.rstrip() for line in path.read_text(encoding="utf-8").split("\n"))
    paragraphs = [each.strip("\n") for each in "\n".join(lines).split("\n\n") if each.strip()]
    if not paragraphs:
        raise ValueError(f"{path} holds no text.")
    return paragraphs[:limit]


def encode_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], longest: int) -> list[list[int]]:
    """Token ids of the texts, in pieces of at most `longest` tokens.

    A text begins with the special tokens that the tokenizer puts in front; the later pieces of a long one do not.
    """
    ids = [list(tokenizer(text).input_ids) for text in texts]
    return [each[start : start + longest] for each in ids for start in range(0, len(each), longest)]
