"""What holds for every task of the registry."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tiny_language import EOS, byte_tokenizer
from trimtab.encoding import encode_example, encode_prompt
from trimtab.tasks import SPLITS, Task, get_task, task_names

OUTPUTS = st.text() | st.lists(
    st.sampled_from(
        [
            "Answer:",
            "answer is",
            "<answer>",
            "</answer>",
            "(A)",
            "B",
            "true",
            "false",
            "7",
            "-3.0",
            "1,234",
            "$",
            "####",
            "Option1",
            "option 2",
            " or ",
            "\u0667",
            "/",
            "\n",
            " ",
        ]
    ),
    max_size=12,
).map("".join)


def test_the_right_completion_is_parsed_as_the_label(task: Task) -> None:
    """A model that writes exactly the completion is right, and would be wrong for another label."""
    for split in SPLITS:
        for example in task.load(split, limit=20):
            assert task.parse(example.completion) == example.label
            assert task.is_correct(task.parse(example.completion), example.label)
            assert not task.is_correct(task.parse(example.completion), example.label + "x")
            assert not task.is_correct(None, example.label)


@pytest.mark.parametrize("between", ["\n", "\n\n", "\nQuestion: "])
def test_a_question_of_its_own_behind_the_answer_does_not_count(task: Task, between: str) -> None:
    """Plain text has no end: a right answer stays right when the model goes on with another example."""
    examples = task.load("train", limit=20)
    for example, other in pairwise(examples):
        assert task.parse(f"{example.completion}{between}{other.prompt}{other.completion}") == example.label


def test_prompt_and_completion_meet_in_one_newline(task: Task) -> None:
    """Every prompt ends in exactly one newline, and every completion starts with a visible character."""
    for split in SPLITS:
        for example in task.load(split, limit=20):
            assert example.prompt.endswith("\n")
            assert example.prompt[:-1] == example.prompt.rstrip()
            assert example.completion == example.completion.strip()


def test_a_limit_is_a_prefix(task: Task) -> None:
    """limit=n gives the first n examples of the same sequence."""
    three = task.load("train", limit=3, seed=5)
    assert len(three) == 3
    assert task.load("train", limit=2, seed=5) == three[:2]
    assert task.load("train", limit=30, seed=5)[:3] == three


def test_the_same_seed_gives_the_same_examples(task: Task) -> None:
    """Examples depend on the seed and on nothing else; another seed gives another order or draw."""
    ids = [[example.prompt for example in task.load("train", limit=30, seed=seed)] for seed in (1, 1, 2)]
    assert ids[0] == ids[1]
    assert ids[0] != ids[2]


def test_no_prompt_is_in_two_splits(task: Task) -> None:
    """What a model is scored on, or chosen on, is not among what it has learnt; ids are unique."""
    loaded = {split: task.load(split, limit=30) for split in SPLITS}
    prompts = {split: {example.prompt for example in loaded[split]} for split in SPLITS}
    assert not prompts["train"] & (prompts["validation"] | prompts["test"])
    assert not prompts["validation"] & prompts["test"]
    ids = [example.id for split in SPLITS for example in loaded[split]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("chat", [False, True])
def test_the_answer_survives_both_forms(task: Task, chat: bool) -> None:
    """As plain text and in a chat template, what is learned decodes to a text whose answer is the label."""
    tokenizer = byte_tokenizer(chat=True)
    for example in task.load("validation", limit=5):
        encoded = encode_example(tokenizer, example, chat)
        assert encoded.prompt == encode_prompt(tokenizer, example, chat)
        asked, answered = tokenizer.decode(encoded.prompt), tokenizer.decode(encoded.completion)
        assert example.prompt.strip() in asked
        assert task.parse(answered.removesuffix(EOS)) == example.label
        assert answered.endswith(EOS) == chat  # plain text has no end, as in the paper's code


@pytest.mark.parametrize("name", task_names())
@given(output=OUTPUTS)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_parse_takes_any_string(name: str, output: str) -> None:
    """parse never raises, and returns a text without white space around it, or None."""
    task = get_task(name)
    parsed = task.parse(output)
    assert parsed is None or (isinstance(parsed, str) and parsed == parsed.strip() != "")
    assert task.is_correct(parsed, "no such label") is False


def test_long_garbage_is_parsed_in_no_time(task: Task) -> None:
    """No pattern takes quadratic time: millions of bad characters are read before pytest's timeout."""
    for start, rest in (
        ("", "answer"),
        ("", "answer:" + " " * 99),
        ("", "<answer>" + "9" * 99),
        ("", "true/"),
        ("", "A "),
        ("", "-"),
        ("answer", " "),
        ("answer:", "*"),
        ("answer: (", "\n"),
        ("<answer>", "9"),
        ("<answer>", "9."),
    ):
        task.parse(start + rest * (1_000_000 // len(rest)) + "x")


def test_an_unknown_split_names_the_nearest(task: Task) -> None:
    """A split that is not one of the three is refused."""
    with pytest.raises(ValueError, match=r"Unknown split 'valid'. Did you mean 'validation'"):
        task.load("valid")  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [0, -1, 1.5, "3"])
def test_a_limit_that_is_no_count_is_refused(task: Task, limit: object) -> None:
    """limit must be a whole number of at least 1."""
    with pytest.raises(ValueError, match="limit must be a whole number"):
        task.load("train", limit=limit)  # type: ignore[arg-type]


def test_tasks_are_frozen(task: Task) -> None:
    """A task's options cannot change after it was made; two with the same options are equal."""
    assert dataclasses.replace(task) == task  # type: ignore[type-var]
    with pytest.raises(dataclasses.FrozenInstanceError):
        task.seed = 3  # type: ignore[attr-defined]
