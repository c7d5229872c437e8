"""Where an output states its answer, and the words around a name that take it back.

"Answer: B" states an answer; "I would not take (B)" and "(B) is wrong" name one and deny it; "(A) 5 days, (B) 6 days"
repeats the options. The rules of `extraction` ask here which of these they have before them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

STATED = r"answer\s*(?::|is\b:?)"

MARKS = r"(?:[^\w\n]|_)*+"
WORDS = r"(?:\w++[^\S\n]++){0,2}"  # "The", "The correct", "Final"
_ANSWER_LINE = re.compile(
    rf"(?:^{MARKS}{WORDS}answer[^\S\n]*:|^[^\w\n#]*+####|\A\s*+{MARKS}{WORDS}answer\s+is\b)[\s*_]*+.*",
    re.IGNORECASE | re.MULTILINE,
)

# A negation reaches the name behind it over up to three words, but over no mark: "not, I say: (A)" names A.
_NEGATION = re.compile(
    r"(?:\b(?:not|never|neither|nor|cannot|hardly|no\s+longer|ruled?\s+out|eliminate|exclude)|n['’]t)"
    r"(?:[^\S\n]+[\w'’]+){0,3}(?:\s+answer\s+is)?[^\w.,;:!?\n]*\Z",
    re.IGNORECASE,
)
_REACH = 60
"""Characters before a name in which a negation is looked for: a bound, so that many names take linear time."""

# The text of an option may go on with "is not soluble": only what speaks about the answer itself denies it.
_RIGHT = r"(?:(?:the|a)\s+)?(?:correct|right|true|answer|it)\b"
DENIED = (
    r"[^\w\n]{0,3}(?:"
    rf"(?:is|are|was|were|seems|(?:would|could|should|might|must)\s+be)\s+(?:\w{{1,12}}ly\s+|also\s+|not\s+)?"
    r"(?:wrong|incorrect|untrue|false|ruled\s+out)\b"
    rf"|(?:(?:is|are|was|were)(?:\s+not|n['’]t)|can(?:not|['’]t)\s+be|would\s+not\s+be)\s+(?:\w{{1,12}}ly\s+)?{_RIGHT})"
)
_DENIAL = re.compile(DENIED, re.IGNORECASE)

_OTHER_SUBJECT = re.compile(
    r"\b(?:answer|question|please|explanation|because|since|as|than|while|whereas)\b", re.IGNORECASE
)
_SENTENCE = re.compile(r"[.!?](?=\s)")


def until_answer(output: str) -> str:
    """The output up to the end of its first line that begins with "Answer:" or "####", or starts "The answer is".

    Where nothing follows in that line, the next one with text belongs to it. Without such a line: the whole output.
    """
    line = _ANSWER_LINE.search(output)
    return output if line is None else output[: line.end()]


def stated(pattern: re.Pattern[str], output: str) -> tuple[re.Match[str] | None, str]:
    """The match that states the answer, and `until_answer(output)`.

    It is the first one in the line that ends `until_answer`, else the last one; "I don't think the answer is" is none.
    """
    line = _ANSWER_LINE.search(output)
    read = until_answer(output)
    first = line and next(_affirmed(pattern, read, line.start()), None)
    return first or last(pattern, read), read


def last(pattern: re.Pattern[str], output: str) -> re.Match[str] | None:
    """The last match that no negation stands before."""
    found = None
    for found in _affirmed(pattern, output):  # noqa: B007 - the last one is what is wanted
        pass
    return found


def negated(output: str, start: int) -> bool:
    """Whether a negation reaches what begins at `start`: "it isn't true", "not (A)"."""
    return _NEGATION.search(output[max(0, start - _REACH) : start]) is not None


def denied(output: str, match: re.Match[str]) -> bool:
    """Whether what was found is taken back: "not (A)", "(A) is wrong"."""
    return negated(output, match.start()) or _DENIAL.match(output, match.end()) is not None


def names_another(named: re.Pattern[str], output: str, end: int, name: str, *, sentence: bool = False) -> bool:
    """Whether the line that goes on at `end` names, by the pattern's one group, another answer than `name`.

    One that is denied, or that stands behind "because", "than" or a question, does not count.

    Args:
        sentence: read no further than the sentence.
    """
    line_end = output.find("\n", end)
    rest = output[end : line_end if line_end >= 0 else len(output)]
    for border in (_OTHER_SUBJECT, _SENTENCE) if sentence else (_OTHER_SUBJECT,):
        if found := border.search(rest):
            rest = rest[: found.start()]
    return any(match[1] != name and not denied(rest, match) for match in named.finditer(rest))


def _affirmed(pattern: re.Pattern[str], output: str, start: int = 0) -> Iterator[re.Match[str]]:
    return (match for match in pattern.finditer(output, start) if not negated(output, match.start()))
