"""The user's own data: both forms, every refusal, and which file is which split."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trimtab.tasks import Example, get_task

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi."},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "See you."},
]


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_prompt_and_completion_are_kept_as_they_stand(tmp_path: Path) -> None:
    """Texts keep their white space; the label is the completion without it; other keys are ignored."""
    path = write(tmp_path / "a.jsonl", {"prompt": "2 + 2 =", "completion": " 4\n", "source": "me"})
    assert get_task(path).load("train") == [Example("2 + 2 =", " 4\n", "4", "a.jsonl:1")]


def test_messages_keep_their_structure(tmp_path: Path) -> None:
    """The last assistant message is the completion; all messages are kept for a chat template."""
    (example,) = get_task(write(tmp_path / "a.jsonl", {"messages": TALK})).load("train")
    assert example.completion == example.label == "See you."
    assert list(example.messages or ()) == TALK
    assert example.prompt == "System: Be brief.\nUser: Hello\nAssistant: Hi.\nUser: Bye\nAssistant:\n"
    assert hash(example) == hash(example)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "no key 'prompt'"),
        ({"prompt": "a"}, r"no key 'completion'; the keys are \['prompt'\]"),
        ({"prompt": "a", "completion": 4}, "'completion' must be a str, not int"),
        ({"prompt": ["a"], "completion": "b"}, "'prompt' must be a str, not list"),
        ({"prompt": "a", "completion": ""}, "'completion' is empty"),
        ({"prompt": " ", "completion": "b"}, "'prompt' is empty"),
        ({"prompt": "a", "messages": TALK}, "both 'messages' and 'prompt'"),
        ({"messages": "hi"}, "'messages' must be a list, not str"),
        ({"messages": []}, "'messages' must be two or more"),
        ({"messages": TALK[2:3]}, "'messages' must be two or more"),
        ({"messages": TALK[:2]}, "of which the last is the assistant's"),
        ({"messages": ["hi", "there"]}, "a message must be an object, not str"),
        ({"messages": [{"role": "user"}, TALK[2]]}, "no key 'content'"),
        ({"messages": [{"role": "user", "content": ""}, TALK[2]]}, "'content' is empty"),
        (
            {"messages": [{"role": "asistant", "content": "a"}]},
            "Unknown role 'asistant'. Did you mean 'assistant'",
        ),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, row: object, message: str) -> None:
    """Each bad line is an error with the file and the line, even where a limit would not reach it."""
    path = write(tmp_path / "a.jsonl", {"prompt": "a", "completion": "b"}, row)
    with pytest.raises(ValueError, match=rf"a\.jsonl:2: .*{message}"):
        get_task(path).load("train", limit=1)


def test_which_file_is_which_split(tmp_path: Path) -> None:
    """Train and test are the file itself unless a test file is given; validation needs a file."""
    one = write(tmp_path / "one.jsonl", *({"prompt": p, "completion": "x"} for p in "abc"))
    two = write(tmp_path / "two.jsonl", *({"prompt": p, "completion": "x"} for p in "cd"))

    def prompts(split: str, **files: str) -> str:
        return "".join(sorted(e.prompt for e in get_task(one, **files).load(split)))  # type: ignore[arg-type]

    assert prompts("train") == prompts("test") == "abc"
    assert prompts("test", test=two) == "cd"
    assert prompts("validation", validation=two) == "cd"
    assert prompts("train", test=two) == prompts("train", validation=two) == "ab"
    with pytest.raises(ValueError, match=r"one\.jsonl has no validation split: give one with validation="):
        prompts("validation")
    with pytest.raises(ValueError, match="no examples in its train split"):
        prompts("train", test=one)
    assert "a score of memory" in get_task(one).split_note


def test_an_answer_is_the_whole_output(tmp_path: Path) -> None:
    """An output is right if it is the completion, whatever white space is around it."""
    task = get_task(write(tmp_path / "a.jsonl", {"prompt": "a", "completion": "b c"}))
    assert task.is_correct(task.parse("\n b c "), "b c")
    assert not task.is_correct(task.parse("b c d"), "b c")
    assert task.parse(" \n") is None
