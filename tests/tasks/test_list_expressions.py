"""List expressions against published rows, an evaluator that rewrites, and the expected distribution."""

from __future__ import annotations

import gzip
import math
import random
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.tasks.list_expressions import OPERATORS, draw_expression, evaluate, longest

EXPRESSIONS = st.recursive(
    st.sampled_from("0123456789"),
    lambda inner: st.builds(
        lambda operator, arguments: f"{operator} {' '.join(arguments)} ]",
        st.sampled_from(sorted(OPERATORS)),
        st.lists(inner, min_size=1, max_size=6),
    ),
    max_leaves=60,
)


def by_rewriting(expression: str) -> int:
    """The value by replacing innermost lists with their value until a digit is left."""

    def value(match: re.Match[str]) -> str:
        arguments = np.array(match[2].split(), dtype=int)
        results = {"MIN": arguments.min, "MAX": arguments.max, "SM": lambda: int(str(arguments.sum())[-1])}
        return str(int(np.median(arguments)) if match[1] == "MED" else results[match[1]]())

    while "[" in expression:
        expression = re.sub(r"\[(MIN|MAX|MED|SM) ([0-9 ]+) \]", value, expression)
    return int(expression)


def wrong_rows(lines: Iterable[str]) -> tuple[int, list[str]]:
    rows = [line.rstrip("\n").split("\t") for line in lines]
    return len(rows), [expression for label, expression in rows if evaluate(expression) != int(label)]


@given(EXPRESSIONS)
def test_evaluate_agrees_with_rewriting(expression: str) -> None:
    """Two evaluators that share no code agree on every expression."""
    assert evaluate(expression) == by_rewriting(expression)


def test_evaluate_agrees_with_published_labels(data: Path) -> None:
    """50 rows of Nangia & Bowman's test set, in binary parentheses, have their published values."""
    lines = (data / "listops" / "nangia_bowman_test_d20s_50_rows.tsv").read_text().splitlines()
    assert wrong_rows(lines) == (50, [])


def test_evaluate_agrees_with_all_published_labels(shared_data: Path) -> None:
    """All 10,000 rows of Nangia & Bowman's test set have their published values."""
    with gzip.open(shared_data / "listops" / "nangia_bowman_test_d20s.tsv.gz", "rt") as lines:
        assert wrong_rows(lines) == (10_000, [])


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("[MED 1 2 ]", 1),
        ("[MED 9 0 4 7 ]", 5),
        ("[MED 8 1 3 ]", 3),
        ("[SM 9 9 9 ]", 7),
        ("[MIN 4 ]", 4),
        ("6", 6),
    ],
)
def test_values_by_hand(expression: str, value: int) -> None:
    """The mean of a median's middle two is truncated; sums are modulo 10; one argument is enough."""
    assert evaluate(expression) == value


def test_depth_is_not_limited_by_recursion() -> None:
    """100,000 lists in each other are evaluated."""
    assert evaluate("[SM 1 " * 100_000 + "0" + " ]" * 100_000) == 0


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "does not end"),
        ("[MAX 1 2", "does not end"),
        ("[MAX 1 2 ] ]", r"Token 5, '\]', follows"),
        ("[MAX ]", "without arguments"),
        ("]", "without arguments"),
        ("1 2", "Token 2, '2', follows"),
        ("[MAX 1 10 ]", "Unknown token of a list expression '10'"),
        ("[MAXX 1 2 ]", r"Unknown token .* Did you mean '\[MAX'"),
    ],
)
def test_what_is_no_expression_is_refused(expression: str, message: str) -> None:
    """A malformed expression is an error that says what is wrong."""
    with pytest.raises(ValueError, match=message):
        evaluate(expression)


def test_lengths_and_depths_stay_in_bounds() -> None:
    """Every kept draw is within the bounds, which are exclusive, and no deeper and wider than asked for."""
    rng = random.Random(0)
    lengths = set()
    for _ in range(3000):
        expression = draw_expression(rng, max_depth=4, max_args=5, min_length=6, max_length=12)
        if expression is None:
            continue
        digits, operators = len(re.findall(r"\d", expression)), expression.count("[")
        lengths.add(digits + 2 * operators)
        depth = np.cumsum([{"[": 1, "]": -1}.get(character, 0) for character in expression])
        assert depth.max() <= 3
        assert depth[-1] == 0
    assert lengths == {7, 8, 9, 10, 11}


def test_the_mean_length_is_that_of_the_branching_process() -> None:
    """The mean length is E_d = 3/4 + (2 + E[arguments] E_(d+1)) / 4, E_D = 1, to five standard errors."""
    expected = 1.0
    for _ in range(4):
        expected = 0.75 + 0.25 * (2 + 4.5 * expected)  # arguments uniform on 2..7
    rng = random.Random(1)
    draws = [draw_expression(rng, max_depth=5, max_args=7, min_length=0, max_length=10**9) for _ in range(20_000)]
    lengths = np.array([len(draw.split()) for draw in draws if draw])
    assert len(lengths) == 20_000
    assert abs(lengths.mean() - expected) < 5 * lengths.std() / math.sqrt(len(lengths))


def test_operators_digits_and_widths_are_uniform() -> None:
    """Pearson's statistic of operators, digits and numbers of arguments is below its 99.99 % point."""
    rng = random.Random(2)
    draws = [draw_expression(rng, max_depth=2, max_args=6, min_length=1, max_length=99) for _ in range(40_000)]
    kept = [draw.split() for draw in draws if draw]
    assert abs(len(kept) - 10_000) < 5 * math.sqrt(40_000 * 0.25 * 0.75)  # a root is an operator one time in four
    for counts, limit in (
        (Counter(tokens[0] for tokens in kept), 21.1),  # 3 degrees of freedom
        (Counter(len(tokens) - 2 for tokens in kept), 23.5),  # 4
        (Counter(token for tokens in kept for token in tokens[1:-1]), 33.7),  # 9
    ):
        expected = sum(counts.values()) / len(counts)
        assert sum((count - expected) ** 2 / expected for count in counts.values()) < limit


def test_the_longest_expression() -> None:
    """longest() is the length of the full tree, counted here by building it."""
    tree = "1"
    for depth in range(2, 6):
        tree = f"[MAX {tree} {tree} {tree} ]"
        assert longest(depth, 3, enough=10**9) == len(tree.split())
    assert 100 < longest(10**9, 2, enough=100) < 10**4
