"""The content of a run's data, by which it is recognised."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from small_runs import SETTINGS, StopAfter, run
from training.runs_together import METHODS, together
from trimtab.tasks import JsonlTask, get_task
from trimtab.training import RunDirectory
from trimtab.training.data_files import data_digests

ABC = "sha256:ba7816bf8f01cfea"
"""Of "abc", as in FIPS 180-2, appendix B.1."""
TASK_FILE = """
from dataclasses import dataclass
from trimtab.tasks import Task

@dataclass(frozen=True)
class Own(Task):
    words: str
    data_dir: str
    name = "own"
    max_new_tokens = 4

    def examples(self, split, seed):
        return iter(())

    def parse(self, output):
        return output
"""


def abc(path: Path) -> str:
    """A file with "abc" in it; its path."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("abc")
    return str(path)


def test_files_of_json_lines_are_all_of_a_task(tmp_path: Path) -> None:
    """The held-out ones too: their lines are taken out of train. A share is no file."""
    train, test = abc(tmp_path / "train.jsonl"), abc(tmp_path / "test.jsonl")
    assert data_digests(JsonlTask(train, test=test, validation=0.5)) == {train: ABC, test: ABC}
    with pytest.raises(FileNotFoundError, match=r"no file .*none\.jsonl"):
        data_digests(JsonlTask(train, validation=tmp_path / "none.jsonl"))


def test_of_published_data_the_files_that_are_read_count(tmp_path: Path) -> None:
    """Others in the folder do not; on the hub a revision is the content."""
    (name, *_) = get_task("boolq").files.values()
    read = abc(tmp_path / name)
    abc(tmp_path / "notes.txt")
    assert data_digests(get_task("boolq", data_dir=str(tmp_path))) == {read: ABC}
    assert data_digests(get_task("boolq")) == {}
    assert data_digests(get_task("listops-small")) == {}


def test_of_an_own_task_its_file_its_options_and_its_folder_count(tmp_path: Path) -> None:
    """The Python file by its name alone: a run directory says nothing of where it lay."""
    words, row = abc(tmp_path / "words.txt"), abc(tmp_path / "data" / "rows.csv")
    file = tmp_path / "own.py"
    file.write_text(TASK_FILE)
    found = data_digests(get_task(str(file), words=words, data_dir=str(tmp_path / "data")))
    assert found.keys() == {"own.py", words, row}
    assert found[words] == found[row] == ABC
    file.write_text(TASK_FILE + "# edited\n")
    assert data_digests(get_task(str(file), words="x" * 5000 + ".y", data_dir="none")).keys() == {"own.py"}
    assert data_digests(get_task(str(file), words=words, data_dir="none"))["own.py"] != found["own.py"]


def lines(path: Path, letters: str) -> None:
    """A file of one example a letter."""
    path.write_text("".join(f'{{"prompt": "{letter}", "completion": "={letter}"}}\n' for letter in letters))


@pytest.mark.parametrize("alone", [True, False])
def test_a_run_does_not_go_on_with_other_data(tmp_path: Path, alone: bool) -> None:
    """An edited file is refused as another setting is, and the run of before goes on when it is as it was."""
    data = tmp_path / "data.jsonl"
    lines(data, "abcdefghijklmnop" * 2)
    settings = replace(SETTINGS, checkpoint_every=1)

    def start(*callbacks: StopAfter) -> None:
        if alone:
            run(tmp_path / "0", settings=settings, task=JsonlTask(data), callbacks=callbacks)
        else:
            together(tmp_path, METHODS[:2], settings=settings, task=JsonlTask(data), callbacks=callbacks)

    with pytest.raises(KeyboardInterrupt):
        start(StopAfter(2))
    lines(data, "abcdefghijklmnoq" * 2)
    with pytest.raises(FileExistsError, match=r"differs in .*data_files\..*data\.jsonl \('sha256:\w+' there, 'sha256:"):
        start()
    assert not RunDirectory(tmp_path / "0").finished
    lines(data, "abcdefghijklmnop" * 2)
    start()
    assert RunDirectory(tmp_path / "0").finished


@pytest.mark.parametrize("alone", [True, False])
def test_a_run_of_before_digests_were_written_goes_on(tmp_path: Path, alone: bool) -> None:
    """Nothing is known of its data; what it goes on with is written down."""
    data = tmp_path / "data.jsonl"
    lines(data, "abcdefghijklmnop")

    def start(*callbacks: StopAfter) -> None:
        if alone:
            run(tmp_path / "0", task=JsonlTask(data), callbacks=callbacks)
        else:
            together(tmp_path, METHODS[:2], task=JsonlTask(data), callbacks=callbacks)

    with pytest.raises(KeyboardInterrupt):
        start(StopAfter(1))
    for file in tmp_path.glob("*/recipe.yaml"):
        recipe = yaml.safe_load(file.read_text())
        for each in recipe.get("runs", [recipe]):
            del each["data_files"]
        file.write_text(yaml.safe_dump(recipe))
    start()
    assert RunDirectory(tmp_path / "0").recipe()["data_files"] == data_digests(JsonlTask(data))
