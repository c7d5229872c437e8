"""Texts that nothing was trained on: what comes with trimtab, files, tasks, and how they become token ids."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tiny_language import byte_tokenizer
from trimtab.analysis.texts import encode_texts, read_texts, unrelated_texts


def test_what_comes_with_trimtab() -> None:
    """Two dozen different texts of some length, on one line each but for the program."""
    texts = unrelated_texts()
    assert len(set(texts)) == len(texts) == 24
    assert min(len(text.split()) for text in texts) > 40
    assert [text.startswith("def ") for text in texts if "\n" in text] == [True]
    assert read_texts(None, 5) == texts[:5]


def test_files(tmp_path: Path) -> None:
    """Paragraphs of a text file, "text" or "prompt" of JSON lines; no more than asked for."""
    (tmp_path / "a.txt").write_text("\n\nOne,\ntwo.\n  \nThree.\n\n\n\nFour.\n", encoding="utf-8")
    assert read_texts(str(tmp_path / "a.txt"), 9) == ["One,\ntwo.", "Three.", "Four."]
    assert read_texts(str(tmp_path / "a.txt"), 2) == ["One,\ntwo.", "Three."]
    lines = [{"text": "A", "prompt": "no"}, {"prompt": "B"}]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert read_texts(str(tmp_path / "b.jsonl"), 9) == ["A", "B"]


def test_prompts_of_a_task() -> None:
    """A task's validation prompts, without their answers."""
    texts = read_texts("listops-small", 3)
    assert len(texts) == 3
    assert all(text.startswith("Evaluate") and text.endswith("\n") for text in texts)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    """No such file, an empty one, a line without a text: errors that name the file."""
    (tmp_path / "empty.txt").write_text(" \n\n", encoding="utf-8")
    (tmp_path / "c.jsonl").write_text('{"question": "?"}\n', encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=r"none\.txt"):
        read_texts(str(tmp_path / "none.txt"), 1)
    with pytest.raises(ValueError, match=r"empty\.txt holds no text"):
        read_texts(str(tmp_path / "empty.txt"), 1)
    with pytest.raises(ValueError, match=r"c\.jsonl:1: no key 'prompt'"):
        read_texts(str(tmp_path / "c.jsonl"), 1)


def test_long_texts_are_cut() -> None:
    """Nothing is lost, and no piece is longer than asked for."""
    tokenizer = byte_tokenizer()
    pieces = encode_texts(tokenizer, ["abcdefg", "hi"], 3)
    assert [tokenizer.decode(piece) for piece in pieces] == ["abc", "def", "g", "hi"]
