"""JSON lines: what is read, and what is refused with file and line."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trimtab.tasks.sources import Row, read_jsonl


def test_rows_know_their_lines(tmp_path: Path) -> None:
    """Rows come in the file's order with line numbers from 1; blank lines at the end are allowed."""
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n{"a": "x\xe2\x80\xa8y"}\n\n  \n')
    assert [(row.number, dict(row.fields)) for row in read_jsonl(file)] == [
        (1, {"a": 1}),
        (2, {"a": "x\u2028y"}),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"bad\.jsonl is empty"),
        (b"\n \n", r"bad\.jsonl is empty"),
        (b'{"a": 1}\n\n{"a": 2}', r"bad\.jsonl:2: a blank line"),
        (b'\n{"a": 2}', r"bad\.jsonl:1: a blank line"),
        (b'{"a": 1}\n{"a": ', r"bad\.jsonl:2: not JSON: Expecting value at character"),
        (b"{'a': 1}", r"bad\.jsonl:1: not JSON"),
        (b'{"a": 1} {"a": 2}', r"bad\.jsonl:1: not JSON: Extra data"),
        (b"[1, 2]", r"bad\.jsonl:1: the line must be an object, not list"),
        (b'{"a": 1}\nnull', r"bad\.jsonl:2: the line must be an object, not NoneType"),
        (b'{"a": "\xff"}', r"bad\.jsonl:1: not UTF-8"),
        (b"[" * 100_000, r"bad\.jsonl:1: JSON that cannot be read"),
        (b'{"a": ' + b"9" * 5000 + b"}", r"bad\.jsonl:1: JSON that cannot be read"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """Each malformed line is an error with the file and the line."""
    file = tmp_path / "bad.jsonl"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_jsonl(file)


@given(st.binary())
@example(b'{"a": "\\ud800"}')
def test_any_bytes_are_rows_or_a_value_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """No file makes the reader fail in another way than with a ValueError that names the file."""
    file = tmp_path_factory.mktemp("any") / "any.jsonl"
    file.write_bytes(content)
    try:
        problem = "" if read_jsonl(file) else "no rows"
    except ValueError as error:
        problem = str(error)
    assert problem == "" or str(file) in problem


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A missing file and a folder are named."""
    with pytest.raises(FileNotFoundError, match=r"There is no file .*gone\.jsonl"):
        read_jsonl(tmp_path / "gone.jsonl")
    with pytest.raises(FileNotFoundError, match="There is no file"):
        read_jsonl(tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "not gzip", "flipped"])
def test_a_damaged_gzip_file_is_refused(tmp_path: Path, damage: str) -> None:
    """A gzipped file that was cut off or changed is an error that names it."""
    whole = gzip.compress(b'{"a": "some text to be compressed"}\n' * 50)
    flipped = whole[:15] + bytes(byte ^ 255 for byte in whole[15:25]) + whole[25:]
    content = {"truncated": whole[:-9], "not gzip": b'{"a": 1}', "flipped": flipped}[damage]
    (tmp_path / "a.jsonl.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.jsonl\.gz cannot be read"):
        read_jsonl(tmp_path / "a.jsonl.gz")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, r"f:7: no key 'a'; the keys are \[\]"),
        ({"a": 3}, "f:7: 'a' must be a str, not int: 3"),
        ({"a": " \n"}, "f:7: 'a' is empty"),
        ({"a": "half \ud800 pair"}, "f:7: 'a' holds a character that is not valid Unicode"),
    ],
)
def test_fields_that_are_no_text(fields: dict[str, object], message: str) -> None:
    """A field that is missing, of another type, blank or not Unicode is an error with the row's place."""
    with pytest.raises(ValueError, match=message):
        Row("f", 7, fields).text("a")
