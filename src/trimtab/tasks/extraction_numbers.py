"""Numbers in a model's output: the rules `number` and `tagged_number` of `extraction`.

A stated number is read as a chain of sides, "6 * 12 = 72 eggs", each of terms that operators join. The first side that
is one number is the answer, whichever end it stands at: "5 + 3 = 8" states 8, "8 = 5 + 3" too. The chain ends at a
full stop, a bracket or a word that is no unit. A sum without a result, and a list of numbers, state none.
"""

from __future__ import annotations

import re

from trimtab.tasks.extraction_statements import stated

# A number is read whole or not at all: what looks like a part of a fraction, a time, an exponent or a decimal comma
# gives nothing rather than a wrong value. Thousands are set apart by commas, or by a space, be it a narrow one or one
# that does not break. Atomic and possessive groups keep it linear.
_SPACE = "[ \u00a0\u2009\u202f]"
_DIGITS = (
    rf"((?>(?:[0-9]{{1,3}}(?:(?:,[0-9]{{3}})++|(?:{_SPACE}[0-9]{{3}})++)(?![0-9])|[0-9]++)(?:\.[0-9]++)?|\.[0-9]++))"
)
_WHOLE = r"(?![.,:][0-9]|[eE][+-]?[0-9]"

# A sign counts where nothing that could be subtracted from stands before it, and apart only behind an equals sign:
# "- 5 eggs" is an item of a list.
_SIGN = r"((?:(?<![\w)\]])(?<![0-9%] )[-−–]|(?<== )[-−–] )[$€£]?)?"
_ANY_NUMBER = re.compile(rf"{_SIGN}(?<![^\W_])(?<!\.)(?<![0-9][,/:])(?<!/ ){_DIGITS}{_WHOLE}|\s?/\s?[0-9])")

_GAP = r"[^\S\n]"
_OPENED = r"[*_$€£(\[{<]|\\boxed|\\text(?:bf)?|\\[(\[]"
_OPENING = rf"(?:{_GAP}|{_OPENED})*+"
_CLOSING = rf"(?:[)\]}}>_$€£%]|{_GAP}|\\[)\]]|\*(?!{_GAP}*+(?:[$€£(\[{{<]?[-−–]?\.?[0-9]|[b-hj-z]\b)))*+"
_MINUS = rf"[-−–]{_GAP}?[$€£]?"
_NUMBER_AHEAD = rf"{_OPENING}(?:{_MINUS})?\.?[0-9]"
_INDIRECTLY = rf"[=≈~+]|\b[a-z]{_GAP}*+=|(?:about|approximately|approx\.?|roughly)\b"  # "x = 5", "about 5"
_START = rf"(?:\s|{_OPENED}|{_INDIRECTLY}|(?<=\n)[-−–•]{_GAP})*+"

_UNIT = rf"(?:{_GAP}*+(?:/{_GAP}*+)?[^\W\d_]++(?:\^?[0-9])?+){{0,3}}?"  # "square feet", "km / h", "pages per day"
_EQUALS = rf"(?:=+>?|≈|→|\b(?:is|equals)\b)(?:{_GAP}|{_INDIRECTLY})*+"
_SEVERAL = r",\s|[;|&]|,?\s?\b(?:or|and|to)\b"
_OPERATOR = (
    r"(?<!>>)(?:\*\*?|[-−–+×·⋅÷/^:x]|\\(?:times|cdot|div)|\b(?:plus|minus|times|(?:divided|multiplied)\s+by)\b)"
    r"|(?<=[0-9)])\("
    r"|(?:(?<=% )|(?<=/[0-9] )|(?<=/ [0-9] ))of\b"  # "20% of 50", but "12 of 20 eggs" are 12
)
_UNKNOWN = rf"[-−–+*×]{_GAP}*+[b-hj-z]\b"  # the "+ x" of an equation that is not solved
_JOIN = (
    rf"{_GAP}*+(?:(?:(?P<equals>{_EQUALS})|(?P<several>{_SEVERAL})|(?P<operator>{_OPERATOR}))(?={_NUMBER_AHEAD})"
    rf"|(?P<unknown>{_UNKNOWN}))"
)
_TERM = re.compile(
    rf"{_OPENING}({_MINUS})?{_DIGITS}{_WHOLE}|[xyzn]{_GAP}*+[-−–+=])(?P<power>[²³])?(?P<end>){_CLOSING}(?:{_UNIT}{_JOIN})?",
    re.IGNORECASE,
)
_STATEMENT = re.compile(rf"(?:answer\s*(?::|=|is\b:?)|####){_START}(?={_NUMBER_AHEAD})", re.IGNORECASE)
_TAG = re.compile(rf"<answer>{_START}(?={_OPENING}(?:{_MINUS})?\.?[0-9][0-9.,]*+(?!\w))")
_NOT_STATED = re.compile(r"answer\s*(?::|=|is(?:n['’]t)?:?)\s*(?:not\s*)?\W?\Z", re.IGNORECASE)
_REACH = 30  # characters: a bound, as this is looked for backwards
_WORD_BEHIND = re.compile(r"[ -]?[^\W\d_]")
_NUMBER_BEHIND = re.compile(rf"{_GAP}*[0-9]")
_SEPARATE_DIGIT = re.compile(r"(?<![^\W_])[0-9]")


def number(output: str) -> str | None:
    """The number of the stated "answer: n" or "#### n", else the last number.

    A currency sign before it, a unit after it, and commas or spaces between thousands are allowed: "$1,234.50" is
    "1234.5". Of an equation the side that is one number is read: "5 + 3 = 8" is "8", and so is "8 = 5 + 3".
    """
    statement, read = stated(_STATEMENT, output)
    if statement:
        return _result(read, statement.end())[0]
    match = None
    for match in _ANY_NUMBER.finditer(read):  # noqa: B007 - the last one is what is wanted
        pass
    if match is None or _NOT_STATED.search(read[max(0, match.start() - _REACH) : match.start()]):
        return None
    return _value(match, read)


def tagged_number(output: str) -> str | None:
    """The number of the first `<answer>n`, else of the first "answer: n", else the only number.

    A tag may hold an equation as well; of several numbers in it none is the answer.
    """
    if tag := _TAG.search(output):
        value, end = _result(output, tag.end())
        return None if _NUMBER_BEHIND.match(output, end) else value
    if statement := _STATEMENT.search(output):
        return _result(output, statement.end())[0]
    for match in _ANY_NUMBER.finditer(output):
        around = output[max(0, match.start(2) - 1) : match.start(2)] + output[match.end() : match.end() + 1]
        if not re.search(r"\w", around):  # "7th", "max_2" are no numbers
            others = _SEPARATE_DIGIT.search(output, match.end()) or _SEPARATE_DIGIT.search(output, 0, match.start())
            return None if others else _value(match, output)  # several: most likely the expression, repeated
    return None


def _result(text: str, start: int) -> tuple[str | None, int]:
    """The first side that is one number in the chain at `start`, and where the last number read ends."""
    joined = False
    while term := _TERM.match(text, start):
        if term["several"] or term["unknown"]:
            break
        joined = joined or bool(term["operator"] or term["power"])
        if not joined:
            return _value(term, text), term.end("end")
        if not (term["operator"] or term["equals"]):
            break
        joined, start = bool(term["operator"]), term.end()
    return None, start


def _value(match: re.Match[str], text: str) -> str | None:
    """The number of a match with its sign and its digits in groups 1 and 2.

    None where a space may stand between two numbers as well as between thousands: "5 100-dollar bills".
    """
    sign, digits = match[1], match[2]
    if " " in digits and " 0" not in digits and _WORD_BEHIND.match(text, match.end(2)):
        return None
    return _canonical(("-" if sign else "") + digits)


def _canonical(written: str) -> str:
    """A decimal number without separators, leading zeros, an empty fraction or a minus before zero."""
    whole, _, fraction = re.sub(rf",|{_SPACE}", "", written.removeprefix("-")).partition(".")
    value = (whole.lstrip("0") or "0") + (f".{fraction.rstrip('0')}" if fraction.rstrip("0") else "")
    return f"-{value}" if written.startswith("-") and value != "0" else value
