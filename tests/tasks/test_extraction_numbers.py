"""Stated numbers as parts of equations, lists and tags: the side that is one number, or none."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.tasks.extraction import RULES


@given(
    value=st.decimals(min_value=-(10**12), max_value=10**12, allow_nan=False, places=3),
    style=st.sampled_from(
        ["{:f}", "{:,f}", "{:,.3f} dollars", "{:.3f}%", "**{:f}**", "{:f}km", "\\boxed{{{:f}}}", "({:f})"]
    ),
    before=st.sampled_from(["", "48/2 = 24, so 24 - 3 = 21.\nAnswer: ", "#### ", "The answer is: ", "in 3 days "]),
    after=st.sampled_from(["", ".", ".\n", " ", ", I think."]),
)
def test_numbers_are_those_that_were_written(value: Decimal, style: str, before: str, after: str) -> None:
    """Whatever is around a number, and however it is written, its value is found."""
    found = RULES["number"](before + style.format(value) + after)
    assert found is not None
    assert Decimal(found) == value


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        # several answers
        ("Answer: 5\nAnswer: 7", "5"),
        ("Answer: 5. No, wait: 9", "5"),
        ("5 + 7 = 12", "12"),
        ("Answer: 5 + 3 = 8", "8"),
        ("Answer: $1,080 - $80 = $1,000.", "1000"),
        ("Answer: 6*12=<<6*12=72>>72 eggs", "72"),
        ("Answer: 72 (= 6 dozen)", "72"),
        ("Answer: 1,2", None),
        # signs and commas
        ("Answer: -5", "-5"),
        ("Answer: \u22125", "-5"),
        ("Answer: -$5.50", "-5.5"),
        ("Answer: $-5", "-5"),
        ("48-24", "24"),
        ("(3)-2", "2"),
        ("x = -0", "0"),
        ("Answer: 1,080", "1080"),
        ("Answer: 1,234,567.00", "1234567"),
        ("Answer: 12,34", None),
        ("Answer: 1 080", "1080"),
        ("Answer: 1\u202f234\u00a0567.5", "1234567.5"),
        ("Answer: 12 3", "12"),
        ("Answer: 1 080,5", None),
        # units and markup
        ("Answer: 18 dollars", "18"),
        ("Answer: 18kg", "18"),
        ("Answer: $18.00.", "18"),
        ("Answer: 18%", "18"),
        ("Answer: **18**", "18"),
        ("Answer: __18__", "18"),
        (r"Answer: \boxed{18}", "18"),
        ("#### 18", "18"),
        ("she sells 16 - 3 - 4 = <<16-3-4=9>>9 eggs", "9"),
        # other words first: the last number
        ("Answer: Janet makes $18", "18"),
        # cut off
        ("48 / 2 = 24, so 24 + 48 = 72. Answer:", "72"),
        ("Answer: -", None),
        ("Answer: 7.", "7"),
        # no number, or a part of something else
        ("Answer: 3/4", None),
        ("Answer: 3 / 4", None),
        ("Answer: 3:30", None),
        ("Answer: 1e5", None),
        ("Answer: seven", None),
        ("version 1.2.3", None),
        ("CO2", None),
        ("\u0667", None),
        ("\uff17", None),
        ("2\u00b2", "2"),
        ("", None),
    ],
)
def test_numbers(output: str, answer: str | None) -> None:
    """The stated number counts, else the last one; a number is read whole or not at all."""
    assert RULES["number"](output) == answer


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        # the side that is one number, whichever end it stands at
        ("Answer: 12 = 3 * 4 eggs", "12"),
        ("Answer: $18 = $9 * 2", "18"),
        ("Answer: 3 * 4 = 12 eggs", "12"),
        ("3 * 4 = 12", "12"),
        ("Answer: 3 eggs * 4 = 12 eggs", "12"),
        ("Answer: 15 gallons * 8 pints / gallon = 120 pints", "120"),
        ("Answer: 16 - 3 - 4 = 10 - 1 = 9", "9"),
        ("Answer: 3 times 4 is 12", "12"),
        ("Answer: 20% of 50 = 10", "10"),
        ("Answer: 3/4 of 12 = 9", "9"),
        ("Answer: 2(3 + 4) = 14", "14"),
        ("Answer: 2\u00b2 = 4", "4"),
        ("Answer: 2**3 = 8", "8"),
        ("Answer: **18** * 2 = 36", "36"),
        ("Answer: 10 / 3 = about 3.33", "3.33"),
        (r"Answer: $\boxed{12} = 3 \times 4$", "12"),
        ("Answer: x = 12 = 3x4", "12"),
        ("Answer: -21/3 = <<-21/3=-7>>-7 degrees", "-7"),
        ("Answer: 60 minutes = 1 hour", "60"),
        # a sum without a result, a range, a fraction, an unknown
        ("Answer: 3 * 4 eggs", None),
        ("Answer: 5 + 3 =", None),
        ("Answer: 5 - 7", None),
        ("Answer: 5 to 7 days", None),
        ("Answer: 3/4 of the 12 eggs", None),
        ("Answer: 3x = 21", None),
        ("Answer: 205 + x = 300", None),
        ("Answer: 8 + 4*m = 40", None),
        # the answer ends: full stop, bracket, words
        ("Answer: 30. 5 + 3 = 8", "30"),
        ("Answer: 12 eggs (3 * 4 = 12, not 13)", "12"),
        ("Answer: 18 eggs because she sold 3 of 21", "18"),
        ("Answer: 18 is the number of eggs", "18"),
        ("Answer: 12 of 20 eggs", "12"),
        ("Answer: 18 - all of them", "18"),
        ("Answer: 18 km/h", "18"),
        ("Answer: 18 cm^2", "18"),
        # several, or denied
        ("Answer: 3, 4", None),
        ("Answer: 3 or 4", None),
        ("Answer: 30; 8", None),
        ("The answer is not 5.", None),
        ("I don't think the answer is 5.", None),
        ("The answer is $18, not $9.", "18"),
        # signs that stand apart
        ("Answer: - 5", "-5"),
        ("Answer: \u2212 5", "-5"),
        ("Answer:\n- 5 eggs", "5"),
        ("Answer:\n-5", "-5"),
        ("x = - 5", "-5"),
        ("-5", "-5"),
        ("48 -24", "24"),
        # spaces between thousands, or between two numbers
        ("There are 5 100-dollar bills", None),
        ("There are 5 100 dollar bills", None),
        ("Answer: 1 080 dollars", "1080"),
        ("Answer: 1 234.", "1234"),
        ("1,234.50", "1234.5"),
    ],
)
def test_equations(output: str, answer: str | None) -> None:
    """Of an equation its lone number is read, up to the end of the answer; a sum, a range or a list states none."""
    assert RULES["number"](output) == answer


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("<answer>3, 4</answer>", None),
        ("<answer>3,4</answer>", None),
        ("<answer>3 4</answer>", None),
        ("<answer>3;4</answer>", None),
        ("<answer>3 or 4</answer>", None),
        ("<answer>3+4</answer>", None),
        ("<answer>3+4=7</answer>", "7"),
        ("<answer>7 = 3 + 4</answer>", "7"),
        ("<answer>1,000</answer>", "1000"),
        ("<answer>1,5</answer>", None),
        ("<answer>\u22127</answer>", "-7"),
        ("<answer>- 7</answer>", "-7"),
        ("<answer>\n7.\n</answer>", "7"),
        (r"<answer>\boxed{7}</answer>", "7"),
        ("<answer>3</answer>3</answer", "3"),
        ("Answer: 3 + 4 = 7", "7"),
        ("Answer: 3, 4", None),
        ("The value is \u22127.", "-7"),
        ("The value is 1,000.", "1000"),
        ("1/2 + 7", None),
        ("CO2 gives 7", "7"),
        ("def max_2_value", None),
    ],
)
def test_tags(output: str, answer: str | None) -> None:
    """A tag holds one number or an equation; of several numbers none is the answer."""
    assert RULES["tagged_number"](output) == answer


@pytest.mark.parametrize("name", ["number", "tagged_number"])
def test_long_equations_take_no_time(name: str) -> None:
    """Terms, units and operators are read once: 200,000 characters, before pytest's timeout."""
    repeated = [
        "9 + ",
        "9 = ",
        "9 = 9 * ",
        "x = ",
        "9 / a ",
        "a a ",
        "9 or ",
        "9* ",
        "9%",
        "<",
        "\n- ",
        "answer: 9 + x = ",
    ]
    before_spaces = ["9", "9 *", "9 = ", "9 a", "9 + ", "9 /", "9 and", "9 divided", "9x", "x", "-"]
    for start, rest in (*(("", each) for each in repeated), *((each, " ") for each in before_spaces)):
        for statement in ("Answer: ", "<answer>"):
            RULES[name](statement + start + rest * (200_000 // len(rest)) + "x")
