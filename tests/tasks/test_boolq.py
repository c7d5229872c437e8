"""BoolQ: texts, both ways to split, and words in outputs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import pytest

from trimtab.tasks import SPLITS, Example, get_task


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def passage_of(example: Example) -> str:
    return example.prompt.split("\nPassage: ")[1].rsplit(" Question: ")[0]


@pytest.fixture
def dev_only(data: Path, tmp_path: Path) -> Path:
    shutil.copy(data / "boolq" / "dev.jsonl", tmp_path)
    return tmp_path


def test_the_text_of_an_example(data: Path) -> None:
    """Instruction, passage and question as in the paper; the answer is a word with a capital."""
    examples = {e.id: e for e in get_task("boolq", data_dir=data / "boolq").load("test")}
    assert examples["dev:2"].prompt == (
        "Answer the question with a true/false based on the given passage.\n"
        "Passage: Alra is a made-up river. It is 120 km long and flows north. "
        "Question: is the alra longer than 500 km\n"
    )
    assert examples["dev:2"].completion == "Answer: False."
    assert examples["dev:2"].label == "false"


def test_the_published_splits(data: Path) -> None:
    """Train is split 80:20, the dev split is the test split, and held-out prompts are not in train."""
    task = get_task("boolq", data_dir=data / "boolq")
    splits = {split: task.load(split) for split in SPLITS}
    assert {e.id for e in splits["test"]} == {f"dev:{i}" for i in range(1, 11)}
    assert len(splits["validation"]) == 2
    # train:5 asks what dev:1 asks.
    left = {f"train:{i}" for i in range(1, 11)} - {"train:5"} - {e.id for e in splits["validation"]}
    assert {e.id for e in splits["train"]} == left
    assert "80:20" in task.split_note


def test_dev_alone_is_split_by_passage(dev_only: Path) -> None:
    """Without train.jsonl every dev row is in one split, a passage in one only, and the note says so."""
    task = get_task("boolq", data_dir=dev_only)
    splits = {split: task.load(split) for split in SPLITS}
    assert sorted(e.id for split in SPLITS for e in splits[split]) == sorted(f"dev:{i}" for i in range(1, 11))
    passages = [passage_of(e) for split in SPLITS for e in {passage_of(e): e for e in splits[split]}.values()]
    assert len(passages) == len(set(passages)) == 6
    assert "NOT the official test" in task.split_note


def test_dev_alone_is_split_60_20_20(tmp_path: Path) -> None:
    """Where every row has its own passage, the shares are exact."""
    made = [{"question": "is it so", "passage": f"passage {i}", "answer": i % 2 == 0} for i in range(50)]
    (tmp_path / "dev.jsonl").write_text("\n".join(map(json.dumps, made)))
    task = get_task("boolq", data_dir=tmp_path)
    assert [len(task.load(split)) for split in SPLITS] == [30, 10, 10]


def test_versions_of_a_passage_are_in_one_split(tmp_path: Path) -> None:
    """Other marks, case or white space, or another end, do not make another passage."""
    made = []
    for i in range(30):
        start = f"River number {i} of the country rises in the hills of the north, and flows west to the sea"
        for passage in (f"{start}.", f"{start.upper()} .", f"{start}; it is {i} km long."):
            made.append({"question": f"is it so {len(made)}", "passage": passage, "answer": True})
    (tmp_path / "dev.jsonl").write_text("\n".join(map(json.dumps, made)))
    task = get_task("boolq", data_dir=tmp_path)
    rivers = {split: {passage_of(e).split()[2] for e in task.load(split)} for split in SPLITS}
    assert [len(rivers[split]) for split in SPLITS] == [18, 6, 6]
    assert len(set.union(*rivers.values())) == 30


def test_the_published_dev_split_alone(shared_data: Path) -> None:
    """The real dev split is cut 60:20:20 to the nearest passage; passages are disjoint, no row is lost."""
    task = get_task("boolq", data_dir=shared_data / "boolq")
    splits = {split: task.load(split) for split in SPLITS}
    sizes = [len(splits[split]) for split in SPLITS]
    assert sum(sizes) == 3270
    assert abs(sizes[0] - 1962) < 15
    assert abs(sizes[1] - 654) < 15
    passages = {split: {passage_of(e) for e in splits[split]} for split in SPLITS}
    assert not passages["train"] & passages["validation"]
    assert not passages["train"] & passages["test"]
    assert not passages["validation"] & passages["test"]
    assert sum(e.label == "true" for split in SPLITS for e in splits[split]) == 2033


def test_the_hub_gives_the_same_examples(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows from the hub and from files make the same splits; the revision is pinned."""

    def hub(name: str, config: None, revision: str) -> dict[str, datasets.Dataset]:
        assert (name, config) == ("google/boolq", None)
        assert len(revision) == 40
        files = {"train": "train.jsonl", "validation": "dev.jsonl"}
        return {split: datasets.Dataset.from_list(rows(data / "boolq" / file)) for split, file in files.items()}

    monkeypatch.setattr(datasets, "load_dataset", hub)
    local, remote = get_task("boolq", data_dir=data / "boolq"), get_task("boolq")
    for split in SPLITS:
        assert remote.load(split, seed=3) == local.load(split, seed=3)
    assert remote.split_note == local.split_note


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "yes"}, "'answer' must be a bool, not str: 'yes'"),
        ({"passage": " "}, "'passage' is empty"),
        ({"question": None}, "'question' must be a str, not NoneType"),
    ],
)
def test_a_bad_row_is_named_with_its_line(dev_only: Path, change: dict[str, object], message: str) -> None:
    """A row that is no question is an error with file and line."""
    found = rows(dev_only / "dev.jsonl")
    found[3] |= change
    (dev_only / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    with pytest.raises(ValueError, match=rf"dev\.jsonl:4: {message}"):
        get_task("boolq", data_dir=dev_only).load("train")


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("Answer: True.", "true"),
        ("answer:false", "false"),
        ("Answer: **True**", "true"),
        ("Answer:\nFALSE", "false"),
        ("The answer is true", "true"),
        ("Answer: True. Answer: False.", "true"),
        ("Answer: True. Answer: Fal", "true"),
        ("It is false. Answer: True", "true"),
        ("True or not, I say false", "true"),
        ("a true/false question: false", "false"),
        ("Answer: true/false", None),
        ("Answer the question with a true/false based on the given passage.", None),
        ("Answer: untrue", None),
        ("Answer: Tru", None),
        ("Answer: yes", None),
        ("", None),
    ],
)
def test_words_in_outputs(output: str, answer: str | None) -> None:
    """The stated word counts, else the first; the instruction's own "true/false" never does."""
    assert get_task("boolq").parse(output) == answer
