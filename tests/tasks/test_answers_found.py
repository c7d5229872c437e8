"""Where an answer is looked for: up to the line that states it, or by a user's regular expression."""

from __future__ import annotations

import pytest

from trimtab.tasks.extraction import RULES, rule


@pytest.mark.parametrize(
    ("name", "output", "answer"),
    [
        ("letter", "Answer: (B) iron.\nQuestion: What rusts?\n(A) x\n(B) y\nAnswer: (C) z.", "B"),
        ("letter", "x = 5, so it is D.\nAnswer: D.\nQuestion: Why?\nx = 7\nAnswer: A.", "D"),
        ("letter", "The correct answer is (C).\nThe correct answer is (D).", "C"),
        ("letter", "Answer: Option A\nSpeed = 5, so the answer is B.\nAnswer: B.\nAnswer: C.", "B"),
        ("number", "48 + 24 = 72\nAnswer: 72\n\nA shop sells 5 pens.\nAnswer: 5", "72"),
        ("number", "48 + 24 = 72\n#### 72\n\nA shop sells 5 pens.\n#### 5", "72"),
        ("number", "The answer is not 7. 9 - 1 = 8\nAnswer: seven or so\nA shop.\nAnswer: 5", "8"),
        ("number", "**Answer:**\n72\n\nA shop sells 5 pens.", "72"),
        ("boolean", "Answer: True.\nAnswer: False.", "true"),
        ("boolean", "Answer: yes\nPassage: It is true.\nAnswer: True.", None),
        ("boolean", "It is false, I think.\nAnswer: True.\nAnswer: False.", "true"),
        ("option", "Answer: Option1.\nOption1: a Option2: b\nAnswer: Option2.", "option1"),
        ("tagged_number", "<answer>3</answer>\nExpression: [MAX 1 2 ]\n<answer>2</answer>", "3"),
    ],
)
def test_an_output_that_goes_on(name: str, output: str, answer: str | None) -> None:
    """What is written behind the line with the answer, as a model does that was given no end, counts for nothing."""
    assert RULES[name](output) == answer


@pytest.mark.parametrize(
    ("expression", "output", "answer"),
    [
        (r"Result: (\w+)", "Result: 3 Result: 4", "4"),
        (r"Result: (\w+)", "Result", None),
        (r"(?:is|are) ([^.]*)", "it is  red .", "red"),
        (r"x(y)?", "xy x", None),
        (r"=(.*)", "a =  ", None),
    ],
)
def test_a_regular_expression(expression: str, output: str, answer: str | None) -> None:
    """The group of the last match, without white space; None where it is empty or there is no match."""
    assert rule(expression)(output) == answer


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("numbr", r"Unknown answer rule 'numbr'. Did you mean 'number'.*a regular expression with one \(group\)"),
        ("a(b", "is not a regular expression: missing"),
        ("(a)(b)", "has 2 groups; exactly one is expected"),
        ("(?:a)", "has 0 groups"),
    ],
)
def test_an_unknown_rule_is_refused(name: str, message: str) -> None:
    """A mistyped name gets the nearest one, a bad expression the reason."""
    with pytest.raises(ValueError, match=message):
        rule(name)
