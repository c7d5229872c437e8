"""The answer in a model's output: one rule a kind of answer, by name, or a user's regular expression.

| rule | what it finds | as |
| --- | --- | --- |
| `boolean` | the stated "answer: true" or "answer: false", else the first of the two words | `true`, `false` |
| `letter` | A to E: the stated one, else the only boxed one, else at the start, else the only "(X)" | `A` ... `E` |
| `number` | the number of the stated "answer: n" or "#### n", else the last number | `1234.5`, `-3` |
| `option` | the stated "answer: option n" (n = 1, 2), else the only option that is named | `option1`, `option2` |
| `tagged_number` | the number of the first `<answer>n`, else of the first "answer: n", else the only number | `7` |
| `text` | everything, without the white space around it | the text |

A model that has learnt from plain text does not stop behind its answer: it goes on with a question of its own. So
`boolean`, `number` and `option` read `until_answer`: no further than the first line that begins with "Answer:". The
first answer in that line is the stated one; without such a line it is the last one in the text. `letter` skips such
lines if no letter follows at once ("Answer: Option A"), as AQuA's rationales have them; ARC reads `until_answer` first.

Every rule gets the model's new text only, never raises, needs time linear in the length of the text, and gives None
where there is no answer. A phrase that names several answers ("true/false", "Option1: a Option2: b", "3 or 4") is no
answer: it is most likely the prompt, repeated. Nor is one that is denied ("not true", "(A) is wrong"): that states
no other; nor the text of an option without its letter, or a digit that is not ASCII.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

from trimtab.registry import unknown
from trimtab.tasks.extraction_numbers import number, tagged_number
from trimtab.tasks.extraction_statements import (
    DENIED,
    MARKS,
    STATED,
    WORDS,
    denied,
    last,
    names_another,
    stated,
    until_answer,
)

__all__ = [
    "LETTERS",
    "RULES",
    "Rule",
    "boolean",
    "letter",
    "number",
    "option",
    "rule",
    "tagged_number",
    "text",
    "until_answer",
]

Rule = Callable[[str], str | None]
"""From the text that a model wrote to the answer in its one canonical form, or None."""

LETTERS = "ABCDE"

# "true/false" and "true or false" are the instruction's phrases, not answers: a phrase is read whole.
_TRUTH = r"(?<![^\W_])(true|false)(?![^\W_])"
_OR = r"[^\S\n]*+[/|,]?+[^\S\n]*+(?:(?:or|and|nor)[^\S\n]++)?+"
_TRUTHS = re.compile(rf"(?<!/)(?<!/ ){_TRUTH}(?:{_OR}{_TRUTH})*+(?!\s*/)", re.IGNORECASE)
_STATED_TRUTH = re.compile(
    rf"{STATED}[\W_]*{_TRUTH}(?:{_OR}\1(?![^\W_]))*+(?!{_OR}{_TRUTH}|\s*/|{DENIED})", re.IGNORECASE
)
_ANY_TRUTH = re.compile(_TRUTH, re.IGNORECASE)

# A letter that stands for an option: in brackets, or a capital that a punctuation mark or the line's end
# follows. Not the first word of "A magnet", nor the "C" of "Carbon".
_LETTER = (
    r"(?:\(([A-Ea-e])\)(?!\s*(?:or|and|/)\s*\(?[A-Ea-e]\b)"
    r"|([A-E])(?=[ \t*]*(?:$|[\r\n)\]}.,:;]))(?!\s*,\s*[A-E]\b)\)?)"
    rf"(?!{DENIED})"
)
_BOX = r"\\boxed\{\s*(?:\\(?:text|mathrm)(?:bf)?\{)?"
_OPENING = rf"(?:[\s*\[$]|{_BOX})*+"
_STATED_LETTER = re.compile(rf"{STATED}{_OPENING}(?-i:{_LETTER})", re.IGNORECASE)
_LETTER_LINE = re.compile(
    rf"(?:^{MARKS}answer\s*:|\A\s*+{MARKS}{WORDS}answer\s+is\b:?){_OPENING}(?-i:{_LETTER})",
    re.IGNORECASE | re.MULTILINE,
)
_FIRST_LETTER = re.compile(rf"{_OPENING}{_LETTER}")
_BOXED_LETTER = re.compile(rf"{_BOX}\(?([A-E])\)?\s*+\}}")
_BRACKETED_LETTER = re.compile(r"\(([A-E])\)")
_ENUMERATED = {  # by the mark behind a letter: the next option of a list
    ")": re.compile(r"(?<![^\W_])([A-E])\)(?=[^\S\n]*\w)"),
    ":": re.compile(r"(?<![^\W_])([A-E]):(?=[^\S\n]*\w)"),
    ".": re.compile(r"(?<![^\W_])([A-E])\.(?=[^\S\n]*\w)"),
}

_CLAUSE = re.compile(r"[^.,;:!?\n]*")

_OPTION = r"(?<![^\W_])option[ _]?([12])(?![^\W_])"
_STATED_OPTION = re.compile(rf"{STATED}[\W_]*{_OPTION}(?!{DENIED})", re.IGNORECASE)
_ANY_OPTION = re.compile(_OPTION, re.IGNORECASE)
_LABEL = re.compile(r"\W?[:)]")


def boolean(output: str) -> str | None:
    """The stated "answer: true" or "answer: false", else the first of the two words, in small letters.

    The rest of a clause that denies one ("it isn't true that it is false") is left out.
    """
    match, read = stated(_STATED_TRUTH, output)
    if match:
        return _truth(match[1])
    unread = 0
    for match in _TRUTHS.finditer(read):
        words = {_truth(word) for word in _ANY_TRUTH.findall(match[0])}
        if len(words) > 1 or match.start() < unread:
            continue
        if not denied(read, match):
            return words.pop()
        clause = _CLAUSE.match(read, match.end())
        unread = clause.end() if clause else match.end()
    return None


def letter(output: str) -> str | None:
    """The letter of the stated "answer: ...", else the only boxed one, else the first, else the only "(X)"."""
    if match := _LETTER_LINE.search(output) or last(_STATED_LETTER, output):
        return _unless_listed(match, output, sentence=True)
    if boxed := list(_BOXED_LETTER.finditer(output)):
        return _only(boxed, output)
    if match := _FIRST_LETTER.match(output):
        return _unless_listed(match, output)
    return _only(list(_BRACKETED_LETTER.finditer(output)), output)


def option(output: str) -> str | None:
    """The stated "answer: option n", else the option that is named if only one of the two is."""
    match, read = stated(_STATED_OPTION, output)
    if match is None:
        named = _only(list(_ANY_OPTION.finditer(read)), read)
    else:
        labelled = _LABEL.match(read, match.end()) is not None  # "Option1: garage. Option2: backyard"
        several = names_another(_ANY_OPTION, read, match.end(), match[1], sentence=not labelled)
        named = None if several else match[1]
    return named and f"option{named}"


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
        match = None
        for match in pattern.finditer(output):  # noqa: B007 - the last one is what is wanted
            pass
        return (match[1] or "").strip() or None if match else None

    return last_group


def _truth(word: str) -> str:
    return "true" if word[0] in "tT" else "false"


def _only(found: list[re.Match[str]], output: str) -> str | None:
    """The one name that was found, if it was not denied."""
    names = {match[1] for match in found}
    return names.pop() if len(names) == 1 and not any(denied(output, match) for match in found) else None


def _unless_listed(match: re.Match[str], output: str, *, sentence: bool = False) -> str | None:
    """The letter that was found, or None where it begins a list of options: "A: 5 days, B: 6 days".

    Args:
        sentence: the answer ends with its sentence; what a model lists behind it does not count.
    """
    bracketed, bare = match.groups()
    found, end = (bracketed or bare).upper(), match.end()
    enumerated: re.Pattern[str] | None = _BRACKETED_LETTER
    if bare:
        end = match.end(2) + 1
        enumerated = _ENUMERATED.get(mark := output[match.end(2) : end])
        sentence = sentence and mark != "."
    if enumerated is None:
        return found
    following = 0 if sentence else output.find("\n", end) + 1
    below = enumerated.match(output, following) if following else None
    another = (below and below[1] != found) or names_another(enumerated, output, end, found, sentence=sentence)
    return None if another else found
