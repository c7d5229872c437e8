"""The other verbs, and the help of every verb."""

from __future__ import annotations

import re

import pytest

from cli.commands import TRAIN, Run
from trimtab.cli.parser import build_parser
from trimtab.cli.verbs import VERBS
from trimtab.methods import METHODS


def test_the_methods_are_listed_with_their_counts(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every name; the count of post-block is 2 r d for each layer."""
    monkeypatch.setenv("COLUMNS", "160")
    assert run("methods --model model") == 0
    said = capsys.readouterr().out
    assert all(name in said for name in METHODS)
    (row,) = [line for line in said.splitlines() if re.match(r"\W+post-block ", line)]
    assert f" {2 * 8 * 32 * 3:,} " in row


def test_chat_reads_lines_and_answers_them(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages and commands from standard input, to the end of the file."""
    assert run(f"{TRAIN} --out run") == 0
    capsys.readouterr()
    lines = iter(["ab", "/strength 0.25", "/quit"])
    monkeypatch.setattr("builtins.input", lambda *_: next(lines))
    assert run("chat --adapter run --max_new_tokens 4 --device cpu --dtype float32") == 0
    said = capsys.readouterr().out
    assert "as plain text" in said
    assert "strength 0.25" in said


@pytest.mark.parametrize("verb", VERBS)
def test_help_explains_every_option(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each option of a verb has words of its own, from a docstring."""
    parser = build_parser(VERBS)
    with pytest.raises(SystemExit):
        parser.parse_args([verb, "--help"])
    assert f"trimtab [options] {verb}" in capsys.readouterr().out
    options = parser._subcommands_action.choices[verb]._actions
    assert [option.dest for option in options if not (option.help or "").strip()] == []
