"""The page docs/how-to/add-a-task.md, executed."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import trimtab.tasks

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-task.md"


@pytest.fixture
def blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The page's Python blocks, of which the first lies as a file in the tasks' folder."""
    found = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    (tmp_path / "reverse.py").write_text(found[0])
    monkeypatch.setattr(trimtab.tasks, "__path__", [*trimtab.tasks.__path__, str(tmp_path)])
    trimtab.tasks._table.cache_clear()
    yield found
    trimtab.tasks._table.cache_clear()
    sys.modules.pop("trimtab.tasks.reverse", None)


def test_a_new_file_is_a_new_task(blocks: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The page's task is found by its name once its file is there, and reverses words."""
    assert "reverse" in trimtab.tasks.task_names()
    for block in blocks[1:]:
        exec(block, {"get_task": trimtab.tasks.get_task})  # noqa: S102 - the page is ours
    word, answer = re.findall(r"Reverse the word (\w{4})\.\nAnswer: (\w+)", capsys.readouterr().out)[0]
    assert list(answer) == list(reversed(word))
    task = trimtab.tasks.get_task("reverse")
    splits = [{e.prompt for e in task.load(split)} for split in trimtab.tasks.SPLITS]
    assert all(task.parse(e.completion) == e.label for e in task.load("test"))
    assert not splits[0] & splits[1]
    assert not splits[0] & splits[2]
    assert task.parse("no") is None
