"""Nested list expressions, the language of ListOps (Nangia & Bowman 2018): drawn at random, and evaluated.

    expression := digit | "[" operator expression+ "]"        tokens are separated by spaces

| token | value of its arguments |
| --- | --- |
| [MIN, [MAX | the smallest, the largest |
| [MED | the median; for an even count the mean of the middle two, truncated |
| [SM | the sum modulo 10 |

Every value is a digit. Neither function recurses, so depth is limited by memory alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from trimtab.registry import unknown

DIGITS = tuple("0123456789")
OPERATOR_PROBABILITY = 0.25


def _median(values: Sequence[int]) -> int:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) // 2


OPERATORS: dict[str, Callable[[Sequence[int]], int]] = {
    "[MIN": min,
    "[MAX": max,
    "[MED": _median,
    "[SM": lambda values: sum(values) % 10,
}


def draw_expression(
    rng: random.Random, *, max_depth: int, max_args: int, min_length: int, max_length: int
) -> str | None:
    """One draw of Long Range Arena's distribution; None if it has not min_length < length < max_length.

    A node at a depth below `max_depth` (the root's is 1) is an operator with probability 1/4, else a digit;
    at `max_depth` it is a digit. An operator has 2 to `max_args` arguments. Operators, digits and numbers of
    arguments are uniform. The length is the number of tokens: 1 a digit, 2 an operator with its bracket.
    """
    operators = tuple(OPERATORS)
    tokens: list[str] = []
    missing = [1]  # missing[k]: nodes still to be drawn at depth k + 1
    while missing:
        if missing[-1] == 0:
            missing.pop()
            if missing:
                tokens.append("]")
            continue
        missing[-1] -= 1
        if len(missing) < max_depth and rng.random() < OPERATOR_PROBABILITY:
            tokens.append(operators[int(len(operators) * rng.random())])  # three times as fast as choice()
            missing.append(rng.randint(2, max_args))
        else:
            tokens.append(DIGITS[int(10 * rng.random())])
        if len(tokens) >= max_length:  # it can only grow; large depths would never end
            return None
    return " ".join(tokens) if min_length < len(tokens) < max_length else None


def evaluate(expression: str) -> int:
    """The value of an expression, a digit. Round parentheses (Nangia & Bowman's binary form) are skipped.

    Raises:
        ValueError: not an expression; says which token is wrong.
    """
    open_lists: list[tuple[str, list[int]]] = []
    result: int | None = None
    for position, symbol in enumerate(expression.split(), start=1):
        if symbol in {"(", ")"}:
            continue
        if result is not None:
            raise ValueError(f"Token {position}, {symbol!r}, follows a finished list expression.")
        if symbol in OPERATORS:
            open_lists.append((symbol, []))
            continue
        if symbol in DIGITS:
            value = int(symbol)
        elif symbol != "]":
            raise unknown("token of a list expression", symbol, (*OPERATORS, *DIGITS, "]"))
        elif not open_lists or not open_lists[-1][1]:
            raise ValueError(f"Token {position}, ']', closes a list without arguments, or none.")
        else:
            operator, arguments = open_lists.pop()
            value = OPERATORS[operator](arguments)
        if open_lists:
            open_lists[-1][1].append(value)
        else:
            result = value
    if result is None:
        raise ValueError(f"A list expression that does not end: {expression[:80]!r}")
    return result


def longest(max_depth: int, max_args: int, enough: int) -> int:
    """The length of the longest expression of this depth and width, or some number above `enough`."""
    length = 1
    for _ in range(max_depth - 1):
        length = 2 + max_args * length
        if length > enough:
            break
    return length
