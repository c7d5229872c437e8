"""Answers in outputs that were not written to be read: every rule on adversarial text."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.tasks.extraction import RULES

FRAGMENTS = st.sampled_from(
    [
        *("Answer:", "answer is", "ANSWER =", "####", "<answer>", "</answer>", "Option1", "option 2", "Options"),
        *("(A)", "B", "C.", "(d)", "true", "False", "true/false", "true or false", "not true", "or", "and", "/"),
        *("7", "-3.0", "1,234", "12,34", ".5", "1e5", "3/4", "−2", "$", "%", "٧", "７", "²", "½", "\\boxed{8}"),
        *(
            "\nAnswer: ",
            "\n#### ",
            "The answer is ",
            " = ",
            "\n",
            " ",
            "\t",
            "\u2028",
            "\x00",
            "*",
            "_",
            "[",
            "(",
            ":",
            ".",
            ",",
            "\ud800",
        ),
    ]
)
OUTPUTS = st.text() | st.lists(FRAGMENTS, max_size=15).map("".join) | st.lists(FRAGMENTS, max_size=15).map(" ".join)
CANONICAL = {
    "boolean": r"true|false",
    "letter": r"[A-E]",
    "number": r"0|-?(?:[1-9][0-9]*(?:\.[0-9]*[1-9])?|0\.[0-9]*[1-9])",
    "option": r"option[12]",
    "tagged_number": r"0|-?(?:[1-9][0-9]*(?:\.[0-9]*[1-9])?|0\.[0-9]*[1-9])",
    "text": r"(?s)\S|\S.*\S",
}


@given(output=OUTPUTS)
def test_any_text_gives_a_canonical_answer_or_none(output: str) -> None:
    """No rule raises; what it finds is one of the few forms that a label can have."""
    for name, form in CANONICAL.items():
        found = RULES[name](output)
        assert found is None or re.fullmatch(form, found), name


def test_every_rule_has_a_form_here() -> None:
    """A new rule is tested on any text too."""
    assert RULES.keys() == CANONICAL.keys()


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("Answer: Option1.", "option1"),
        ("answer: option 2", "option2"),
        ("Answer: **Option_2**", "option2"),
        ("__Option2__", "option2"),
        ("The answer is Option2", "option2"),
        ("Answer: Option1. Answer: Option2.", "option1"),
        ("Answer: Option1. Answer: Opt", "option1"),
        ("Option2", "option2"),
        ("Option1: garage Option2: backyard\nAnswer: Option1.", "option1"),
        # the prompt, repeated
        ("Option1: garage Option2: backyard", None),
        ("Answer: Option1 or Option2", None),
        ("Answer: Option1/Option2", None),
        ("Answer: Option1: garage Option2: backyard", None),
        ("Answer: Option1: garage. Option2: backyard.", None),
        ("Answer: Option1, Option2", None),
        ("Answer: Option1: garage", "option1"),
        ("Answer: Option1, not Option2.", "option1"),
        ("Answer: Option1 because Option2 is too small.", "option1"),
        ("Option2.", "option2"),
        # denied
        ("Answer: not Option1", None),
        ("Answer: Option1 is wrong.", None),
        ("It isn't Option1.", None),
        # the option's text, another number, cut off
        ("Answer: garage", None),
        ("Answer: Option3.", None),
        ("Answer: Option12", None),
        ("Answer: Option\u0661", None),
        ("Answer: Option", None),
        ("adoption1", None),
        ("", None),
    ],
)
def test_options(output: str, answer: str | None) -> None:
    """The stated option counts, else the only one that is named; its text is no answer."""
    assert RULES["option"](output) == answer


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("Answer: true or false", None),
        ("true / false", None),
        ("Answer: True, or so", "true"),
        ("Answer: __True__", "true"),
        ("Is it true or false? False", "false"),
        ("It is not true", None),
        ("Answer: not false", None),
        ("It isn't true.", None),
        ("It isn\u2019t entirely true.", None),
        ("It isn't true that it's false.", None),
        ("It is not true, it is false.", "false"),
        ("never true", None),
        ("neither true nor false", None),
        ("True is wrong.", None),
        ("I don't think the answer is true.", None),
        ("I'm not sure, but true.", "true"),
        ("Answer: True, not false.", "true"),
        ("Answer: true, false", None),
        ("Answer the question with a true/false based on the given passage.\nAnswer: True.", "true"),
        ("Question: is it true that it rains\nAnswer: False.", "false"),
        ("Answer: True. Answer: Fals", "true"),
        ("\uff34rue", None),
    ],
)
def test_words_of_truth(output: str, answer: str | None) -> None:
    """Phrases of the prompt and negations are no answers."""
    assert RULES["boolean"](output) == answer


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("x = 250 m. Answer D\nAnswer: D.", "D"),
        ("Answer: (A) or (B)", None),
        ("Answer: A, B", None),
        ("Answer: A, because", "A"),
        ("Answer: (B) and (C)", None),
        ("Answer: 250 m", None),
        ("so it must be (C), not (D). Answer", None),
        ("Correct answer is E", "E"),
        ("Answer: \u0410", None),  # a Cyrillic letter
        ("Answer: (E", None),
        (r"\boxed{C}", "C"),
        (r"(A) or (B)? It is $\boxed{\text{C}}$.", "C"),
        (r"\boxed{A} or \boxed{B}", None),
        # denied
        ("The answer is not (A).", None),
        ("I don't think the answer is (A).", None),
        ("It isn't (B).", None),
        ("(A) is wrong.", None),
        ("Answer: (A) is not right.", None),
        ("(C) is not soluble in water.", "C"),
        ("Answer: (B), not (A).", "B"),
        ("(B), because (A) is wrong.", "B"),
        ("All others are equal except (C).", "C"),
        # the options, repeated
        ("A: 5 days, B: 6 days", None),
        ("Answer: (A) 5 days, (B) 6 days", None),
        ("Answer: A. 5 days B. 6 days", None),
        ("(A) 5 days\n(B) 6 days", None),
        ("Answer: B) 5 days", "B"),
        ("Answer: (B) 5 days. (A) 6 days.", "B"),
        ("Answer: (B) 5 days.\n(A) 6 days.", "B"),
        ("B) Vitamin C.", "B"),
    ],
)
def test_letters(output: str, answer: str | None) -> None:
    """One letter must be stated; several, an option's text or a look-alike are no answers."""
    assert RULES["letter"](output) == answer


@pytest.mark.parametrize("name", sorted(RULES))
def test_long_garbage_takes_no_time(name: str) -> None:
    """No rule takes quadratic time: 200,000 bad characters are read before pytest's timeout."""
    alone = ["answer", "answer:" + " " * 99, "<answer>" + "9" * 99, "true/", "A ", "-", "#", "####", "9/", "1,234,"]
    alone += ["9.", "9", "-$", "option", "option1 or ", "(A) or ", "true or ", "not "]
    alone += ["isn't true that", "true is ", "not (A) ", "A) x ", "\\boxed{", "\\boxed{A}", "option1: ", "answer: (A) "]
    after_answer = ["*", "$", "_", "(A", "Option", "\n", "9,", "1,234,", "- "]
    before_spaces = [
        "answer",
        "answer is",
        "true",
        "(A)",
        "A",
        "A,",
        "option1",
        "9",
        "9 /",
        "<answer>",
        "not",
        "(A) is",
    ]
    for start, rest in (
        *(("", each) for each in alone),
        *(("answer:", each) for each in after_answer),
        *((each, " ") for each in before_spaces),
        *(("<answer>", each) for each in ("9", "9.")),
    ):
        RULES[name](start + rest * (200_000 // len(rest)) + "x")
