"""ListOps: what is drawn, how splits stay apart, and what counts as an answer."""

from __future__ import annotations

import hashlib
import re

import pytest

from trimtab.tasks import SPLITS, get_task
from trimtab.tasks.list_expressions import evaluate


def expression_of(prompt: str) -> str:
    found = re.fullmatch(r"Evaluate .* <answer>\.\.\.</answer>\. Expression: (.*)\n", prompt)
    assert found
    return found[1]


def test_the_text_of_an_example() -> None:
    """Prompt and completion are the paper's, and the label is the value of the expression."""
    (example,) = get_task("listops-small").load("train", limit=1)
    expression = expression_of(example.prompt)
    assert example.prompt == (
        "Evaluate the value of the following nested list expression. Return only the final numeric result "
        f"inside <answer>...</answer>. Expression: {expression}\n"
    )
    assert example.completion == f"<answer>{evaluate(expression)}</answer>"


def test_long_range_arena_settings() -> None:
    """`listops` has Long Range Arena's lengths, depth, width and sizes."""
    task = get_task("listops")
    assert (task.train_size, task.validation_size, task.test_size) == (96_000, 2_000, 2_000)  # type: ignore[attr-defined]
    for example in task.load("train", limit=20):
        expression = expression_of(example.prompt)
        assert 500 < len(expression.split()) < 2000
        levels = 0
        while expression.startswith("["):  # innermost lists become digits, level by level
            levels += 1
            inner = re.findall(r"\[[A-Z]+ ([0-9 ]+) \]", expression)
            assert all(2 <= len(arguments.split()) <= 10 for arguments in inner)
            expression = re.sub(r"\[[A-Z]+ ([0-9 ]+) \]", "0", expression)
        assert levels <= 9
        assert expression == "0"


def test_small_expressions_have_an_operator_at_the_root() -> None:
    """`listops-small` has no bare digits, at most 4 arguments and at most two lists in each other."""
    examples = get_task("listops-small").load("train")
    assert len(examples) == 4_000
    expressions = [expression_of(example.prompt) for example in examples]
    assert all(expression.startswith("[") for expression in expressions)
    assert {len(expression.split()) for expression in expressions} <= set(range(4, 27))
    assert not any(re.search(r"\[[^\]]*\[[^\]]*\[", expression) for expression in expressions)
    assert {example.label for example in examples} == set("0123456789")


def test_splits_stay_apart_under_all_seeds() -> None:
    """No expression is in two splits, even if these are drawn with different seeds, nor twice in one."""
    task = get_task("listops-small")
    drawn = {split: set[str]() for split in SPLITS}
    for seed in (0, 1, 2):
        for split in SPLITS:
            prompts = [example.prompt for example in task.load(split, seed=seed)]
            assert len(set(prompts)) == len(prompts)
            drawn[split] |= set(prompts)
    assert not drawn["train"] & drawn["validation"]
    assert not drawn["train"] & drawn["test"]
    assert not drawn["validation"] & drawn["test"]


def test_every_split_has_the_same_share_of_short_expressions() -> None:
    """Splits are alike: de-duplication does not leave the larger ones with fewer short expressions."""
    task = get_task("listops-small")
    shares = []
    for split in ("train", "test"):
        lengths = [len(expression_of(example.prompt).split()) for example in task.load(split)]
        shares.append(sum(length <= 5 for length in lengths) / len(lengths))
    assert abs(shares[0] - shares[1]) < 0.06  # four standard errors of the smaller split


@pytest.mark.parametrize(
    ("name", "digest"),
    [("listops", "6c37524432a2ef0b"), ("listops-small", "1210cc2585077785")],
)
def test_the_same_examples_on_every_machine(name: str, digest: str) -> None:
    """The first three test examples are those of the day they were written down."""
    text = "".join(example.prompt + example.completion for example in get_task(name).load("test", limit=3))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest


def test_seeds_of_task_and_load() -> None:
    """Each of the two seeds changes the draw."""
    draws = [
        [example.prompt for example in get_task("listops-small", seed=a).load("train", limit=20, seed=b)]
        for a, b in ((0, 0), (1, 0), (0, 1), (1, 1))
    ]
    assert len({tuple(draw) for draw in draws}) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_depth": 1}, "max_depth must be a whole number >= 2, not 1"),
        ({"max_args": True}, "max_args must be a whole number"),
        ({"min_length": 0}, "min_length must be a whole number >= 1"),
        ({"max_length": "20"}, "max_length must be a whole number"),
        ({"train_size": 0}, "train_size must be a whole number >= 1"),
        ({"seed": -1}, "seed must be a whole number >= 0"),
        ({"max_depth": 2, "max_args": 3}, "no expression with max_depth=2, max_args=3, min_length=500"),
        ({"min_length": 10, "max_length": 11}, "no expression with"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], message: str) -> None:
    """Options that no expression satisfies are refused before anything is drawn."""
    with pytest.raises(ValueError, match=message):
        get_task("listops", **options)


def test_a_used_up_space_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are too few expressions, the error says how many there are; a limit still works."""
    monkeypatch.setattr("trimtab.tasks.listops._PATIENCE", 20_000)
    task = get_task("listops-small", max_depth=2, max_args=2)
    with pytest.raises(ValueError, match=r"only (\d+) of 4000 train expressions") as error:
        task.load("train")
    found = int(re.search(r"only (\d+)", str(error.value))[1])  # type: ignore[index]
    assert 250 < found < 330  # 8/11 of the 400 expressions [OP d d ]
    assert len(task.load("train", limit=100)) == 100


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("<answer>7</answer>", "7"),
        ("<answer> 7 </answer> and on", "7"),
        ("<answer>7", "7"),
        ("<answer>7</ans", "7"),
        ("<answer>3</answer> no: <answer>4</answer>", "3"),
        ("<answer>3</answer> The answer: 5", "3"),
        ("<answer>...</answer> The answer is 5.", "5"),
        ("Answer: 1\nAnswer: 2", "1"),
        ("The value is 7.", "7"),
        ("<answer>17</answer>", "17"),
        ("<answer>07</answer>", "7"),
        ("<answer>7.0</answer>", "7"),
        ("<answer>7.50</answer>", "7.5"),
        ("<answer>-3</answer>", "-3"),
        ("<answer>", None),
        ("<answer>x7</answer>", None),
        ("[MAX 2 9 ] is 9", None),
        ("7th of March", None),
        ("٧", None),
        ("", None),
    ],
)
def test_answers_in_outputs(output: str, answer: str | None) -> None:
    """The first tagged number counts, cut off or not; a repeated expression is no answer."""
    assert get_task("listops-small").parse(output) == answer
