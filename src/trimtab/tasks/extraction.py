"""The answer in a model's output: one rule a kind of answer, by name, or a user's regular expression.

| rule | what it finds | as |
| --- | --- | --- |
| `boolean` | the stated "answer: true" or "answer: false", else the first of the two words | `true`, `false` |
| `letter` | A to E in the stated answer, else at the output's start, else the only "(X)" | `A` ... `E` |
| `number` | the number of the stated "answer: n" or "#### n", else the last number | `1234.5`, `-3` |
| `option` | the stated "answer: option n" (n = 1, 2), else the only option that is named | `option1`, `option2` |
| `tagged_number` | the number of the first `<answer>n`, else of the first "answer: n", else the only number | `7` |
| `text` | everything, without the white space around it | the text |

A model that has learnt from plain text does not stop behind its answer: it goes on with a question of its own. So
`boolean`, `number` and `option` read `until_answer`: no further than the first line that begins with "Answer:". The
first answer in that line is the stated one; without such a line it is the last one in the text. `letter` skips such
lines if no letter follows at once ("Answer: Option A"), as AQuA's rationales have them; ARC reads `until_answer` first.

Every rule gets the model's new text only, never raises, needs time linear in the length of the text, and gives None
where there is no answer. A phrase that names several answers ("true/false", "Option1 or Option2") is no answer: it is
most likely the prompt, repeated. Nor is the text of an option without its letter, or a digit that is not ASCII.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

from trimtab.registry import unknown

Rule = Callable[[str], str | None]
"""From the text that a model wrote to the answer in its one canonical form, or None."""

LETTERS = "ABCDE"

_STATED = r"answer\s*(?::|is\b:?)"

_MARKS = r"(?:[^\w\n]|_)*+"
_WORDS = r"(?:\w++[^\S\n]++){0,2}"  # "The", "The correct", "Final"
_ANSWER_LINE = re.compile(
    rf"(?:^{_MARKS}{_WORDS}answer[^\S\n]*:|^[^\w\n#]*+####|\A\s*+{_MARKS}{_WORDS}answer\s+is\b)[\s*_]*+.*",
    re.IGNORECASE | re.MULTILINE,
)

# "true/false" and "true or false" are the instruction's phrases, not answers; "not true" would be read as its opposite.
_TRUTH = (
    r"(?<!/)(?<!/ )(?<!\btrue or )(?<!\bfalse or )(?<!\bnot )"
    r"(?<![^\W_])(true|false)(?![^\W_])(?!\s*/|\s+or\s+(?:true|false)\b)"
)
_STATED_TRUTH = re.compile(rf"{_STATED}[\W_]*{_TRUTH}", re.IGNORECASE)
_ANY_TRUTH = re.compile(_TRUTH, re.IGNORECASE)

# A letter that stands for an option: in brackets, or a capital that a punctuation mark or the line's end
# follows. Not the first word of "A magnet", nor the "C" of "Carbon".
_LETTER = (
    r"(?:\(([A-Ea-e])\)(?!\s*(?:or|and|/)\s*\(?[A-Ea-e]\b)|([A-E])(?=[ \t*]*(?:$|[\r\n)\].,:;]))(?!\s*,\s*[A-E]\b))"
)
_STATED_LETTER = re.compile(rf"{_STATED}[\s*\[]*(?-i:{_LETTER})", re.IGNORECASE)
_LETTER_LINE = re.compile(
    rf"(?:^{_MARKS}answer\s*:|\A\s*+{_MARKS}{_WORDS}answer\s+is\b:?)[\s*\[]*(?-i:{_LETTER})",
    re.IGNORECASE | re.MULTILINE,
)
_FIRST_LETTER = re.compile(rf"[\s*\[]*{_LETTER}")
_BRACKETED_LETTER = re.compile(r"\(([A-E])\)")

_NAMED_OPTION = r"(?<![^\W_])option[ _]?([12])(?![^\W_])"
_OPTION = _NAMED_OPTION + r"(?!\s*(?:/|or\b|and\b))"
_STATED_OPTION = re.compile(rf"{_STATED}[\W_]*{_OPTION}", re.IGNORECASE)
_ANY_OPTION = re.compile(_NAMED_OPTION, re.IGNORECASE)

# A sign counts where nothing that could be subtracted from stands before it. A number is read whole or not at all:
# what looks like a part of a fraction, a time, an exponent or a decimal comma gives nothing rather than a wrong value.
# Thousands are set apart by commas, or by a space, be it a narrow one or one that does not break.
# Atomic and possessive groups keep it linear.
_SPACE = "[ \u00a0\u2009\u202f]"
_NUMBER = (
    r"(?:(?<![\w)\]])([-−–])[$€£]?)?"
    r"(?<![^\W_])(?<!\.)(?<![0-9][,/:])(?<!/ )"
    rf"((?>(?:[0-9]{{1,3}}(?:(?:,[0-9]{{3}})++|(?:{_SPACE}[0-9]{{3}})++)(?![0-9])|[0-9]++)(?:\.[0-9]++)?|\.[0-9]++))"
    r"(?![.,:][0-9]|[eE][+-]?[0-9]|\s?/\s?[0-9])"
)
_STATEMENT = r"(?:answer\s*(?::|=|is\b:?)|####)"
# "Answer: 5 + 3 = 8" states 8: what stands behind the last equals sign of a sum.
_SUM = r"(?:[0-9 \t.,$€£%()\[\]{}<>+*/x×÷·^−–-]*+=(?<!\(=))*+"
_STATED_NUMBER = re.compile(rf"{_STATEMENT}{_SUM}[\s*_$€£(\[{{<]*{_NUMBER}", re.IGNORECASE)
_ANY_NUMBER = re.compile(_NUMBER)

_VALUE = r"(-?[0-9]+(?:\.[0-9]+)?)(?!\w|\.[0-9])"
_TAGGED_VALUE = re.compile(r"<answer>\s*" + _VALUE)
_STATED_VALUE = re.compile(r"answer\s*(?::|=|is\b:?)\s*" + _VALUE, re.IGNORECASE)
_LONE_VALUE = re.compile(r"(?<![\w.])" + _VALUE)


def until_answer(output: str) -> str:
    """The output up to the end of its first line that begins with "Answer:" or "####", or starts "The answer is".

    Where nothing follows in that line, the next one with text belongs to it. Without such a line: the whole output.
    """
    line = _ANSWER_LINE.search(output)
    return output if line is None else output[: line.end()]


def boolean(output: str) -> str | None:
    """The stated "answer: true" or "answer: false", else the first of the two words, in small letters."""
    match, read = _stated(_STATED_TRUTH, output)
    match = match or _ANY_TRUTH.search(read)
    if match is None:
        return None
    return "true" if match[1][0] in "tT" else "false"


def letter(output: str) -> str | None:
    """The letter of the stated "answer: ...", else one that the output starts with, else the only "(X)"."""
    match = _LETTER_LINE.search(output) or _last(_STATED_LETTER, output) or _FIRST_LETTER.match(output)
    if match:
        return next(group for group in match.groups() if group).upper()
    bracketed = set(_BRACKETED_LETTER.findall(output))
    return bracketed.pop() if len(bracketed) == 1 else None


def option(output: str) -> str | None:
    """The stated "answer: option n", else the option that is named if only one of the two is."""
    match, read = _stated(_STATED_OPTION, output)
    named = {match[1]} if match else set(_ANY_OPTION.findall(read))
    return f"option{named.pop()}" if len(named) == 1 else None


def number(output: str) -> str | None:
    """The number of the stated "answer: n" or "#### n", else the last number.

    A currency sign before it, a unit after it, and commas or spaces between thousands are allowed: "$1,234.50" is
    "1234.5". Of a sum its result is read: "5 + 3 = 8" is "8".
    """
    match, read = _stated(_STATED_NUMBER, output)
    match = match or _last(_ANY_NUMBER, read)
    return _canonical(("-" if match[1] else "") + match[2]) if match else None


def tagged_number(output: str) -> str | None:
    """The number of the first `<answer>n`, else of the first "answer: n", else the only number."""
    for pattern in (_TAGGED_VALUE, _STATED_VALUE):
        if match := pattern.search(output):
            return _canonical(match[1])
    lone = _LONE_VALUE.findall(output)  # several: most likely the expression, repeated
    return _canonical(lone[0]) if len(lone) == 1 else None


def text(output: str) -> str | None:
    """The whole output without the white space around it."""
    return output.strip() or None


RULES: dict[str, Rule] = {
    "boolean": boolean,
    "letter": letter,
    "number": number,
    "option": option,
    "tagged_number": tagged_number,
    "text": text,
}


@cache
def rule(answer: str) -> Rule:
    """The rule of that name; or, for a regular expression, the text of its one group in the last match.

    A regular expression is told from a name by its bracket. White space around what the group holds is left out.

    Raises:
        ValueError: no such rule, or a regular expression that cannot be read or has not exactly one group.
    """
    if "(" not in answer:
        if answer not in RULES:
            raise unknown("answer rule", answer, (*RULES, "<a regular expression with one (group)>"))
        return RULES[answer]
    try:
        pattern = re.compile(answer)
    except re.error as error:
        raise ValueError(f"The answer rule {answer!r} is not a regular expression: {error}.") from error
    if pattern.groups != 1:
        raise ValueError(
            f"The answer rule {answer!r} has {pattern.groups} groups; exactly one is expected, around the answer. "
            "Brackets that only group are written (?:...)."
        )

    def last_group(output: str) -> str | None:
        match = _last(pattern, output)
        return (match[1] or "").strip() or None if match else None

    return last_group


def _stated(pattern: re.Pattern[str], output: str) -> tuple[re.Match[str] | None, str]:
    """The match that states the answer, and `until_answer(output)`."""
    line = _ANSWER_LINE.search(output)
    read = until_answer(output)
    return (line and pattern.search(read, line.start())) or _last(pattern, read), read


def _last(pattern: re.Pattern[str], output: str) -> re.Match[str] | None:
    last = None
    for last in pattern.finditer(output):  # noqa: B007 - the last one is what is wanted
        pass
    return last


def _canonical(written: str) -> str:
    """A decimal number without separators, leading zeros, an empty fraction or a minus before zero."""
    whole, _, fraction = re.sub(rf",|{_SPACE}", "", written.removeprefix("-")).partition(".")
    value = (whole.lstrip("0") or "0") + (f".{fraction.rstrip('0')}" if fraction.rstrip("0") else "")
    return f"-{value}" if written.startswith("-") and value != "0" else value
