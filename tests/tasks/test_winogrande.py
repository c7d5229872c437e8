"""WinoGrande: texts, splits without the unlabelled one, and bad rows."""

from __future__ import annotations

import gzip
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest

from trimtab.tasks import SPLITS, get_task


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_text_of_an_example(data: Path) -> None:
    """Instruction, sentence and the two options as in the paper; the answer is the option's name."""
    examples = {e.id: e for e in get_task("winogrande", data_dir=data / "winogrande").load("test")}
    assert examples["dev:1"].prompt == (
        "Please choose the correct answer to fill in the blank to complete the given sentence: "
        "Sarah was a much better surgeon than Maria so _ always got the easier cases.\n"
        "Option1: Sarah Option2: Maria\n"
    )
    assert examples["dev:1"].completion == "Answer: Option2."
    assert examples["dev:1"].label == "option2"


def test_dev_is_scored_and_train_is_split(data: Path) -> None:
    """Train is split 80:20; the labelled dev split is the test split, which the note says."""
    task = get_task("winogrande", data_dir=data / "winogrande")
    splits = {split: [e.id for e in task.load(split)] for split in SPLITS}
    assert sorted(splits["test"]) == [f"dev:{i}" for i in range(1, 7)]
    assert sorted(splits["train"] + splits["validation"]) == sorted(f"train:{i}" for i in range(1, 13))
    assert len(splits["validation"]) == 2
    assert "test = the official dev split" in task.split_note
    assert "no labels" in task.split_note


def test_published_files(shared_data: Path) -> None:
    """The real files give 80:20 to the nearest group of rows, and every dev row is scored by its own label."""
    task = get_task("winogrande", data_dir=shared_data / "winogrande")
    splits = {split: task.load(split) for split in SPLITS}
    assert [len(splits[split]) for split in SPLITS] == [7399, 1849, 1267]
    keys = [f"option{row['answer']}" for row in rows(shared_data / "winogrande" / "dev.jsonl")]
    assert [e.label for e in sorted(splits["test"], key=lambda e: int(e.id.removeprefix("dev:")))] == keys
    assert all(task.parse(e.completion) == e.label for split in SPLITS for e in splits[split])


def test_no_twin_of_a_published_row_is_in_another_split(shared_data: Path) -> None:
    """The 2,011 pairs of the real train file, by the names that the authors gave them, are in one split each."""
    task = get_task("winogrande", data_dir=shared_data / "winogrande")
    with gzip.open(shared_data / "winogrande" / "train_debiased.jsonl.gz") as file:
        names = [json.loads(line)["qID"] for line in file]
    pairs = {
        split: [names[int(e.id.removeprefix("train:")) - 1].rpartition("-")[0] for e in task.load(split)]
        for split in SPLITS[:2]
    }
    assert len(pairs["train"] + pairs["validation"]) == 9248
    assert sum(count == 2 for split in pairs for count in Counter(pairs[split]).values()) == 2011
    assert not set(pairs["train"]) & set(pairs["validation"])


def test_twins_are_in_one_split_whatever_the_order_of_their_options(data: Path, tmp_path: Path) -> None:
    """Made-up pairs: opposite answers, options in either order and case; no pair is torn apart."""
    made = [
        {"sentence": f"Item {i} beats item {i + 1} as _ is {word}.", "option1": a, "option2": b, "answer": answer}
        for i in range(40)
        for word, a, b, answer in (("better", f"Item {i}", f"x{i}", "1"), ("worse", f"X{i}", f"item {i}", "1"))
    ]
    (tmp_path / "train_debiased.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    shutil.copy(data / "winogrande" / "dev.jsonl", tmp_path)
    task = get_task("winogrande", data_dir=tmp_path)
    pairs = {split: {(int(e.id.removeprefix("train:")) - 1) // 2 for e in task.load(split)} for split in SPLITS[:2]}
    assert [len(task.load(split)) for split in SPLITS[:2]] == [64, 16]
    assert not pairs["train"] & pairs["validation"]


def test_the_hub_gives_the_same_examples(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows from the hub, whose test split has empty answers, and from files make the same splits."""

    def hub(name: str, config: str, revision: str) -> dict[str, datasets.Dataset]:
        assert (name, config) == ("allenai/winogrande", "winogrande_debiased")
        assert len(revision) == 40
        files = {"train": "train_debiased.jsonl", "validation": "dev.jsonl"}
        found = {split: datasets.Dataset.from_list(rows(data / "winogrande" / file)) for split, file in files.items()}
        return {**found, "test": found["train"].map(lambda row: {"answer": ""})}

    monkeypatch.setattr(datasets, "load_dataset", hub)
    local, remote = get_task("winogrande", data_dir=data / "winogrande"), get_task("winogrande")
    for split in SPLITS:
        assert remote.load(split, seed=3) == local.load(split, seed=3)
    assert remote.split_note == local.split_note


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "3"}, "'answer' must be '1' or '2', not '3'"),
        ({"answer": ""}, "'answer' is empty"),
        ({"answer": 1}, "'answer' must be a str, not int"),
        ({"option2": " "}, "'option2' is empty"),
    ],
)
def test_a_bad_row_is_named_with_its_line(data: Path, tmp_path: Path, change: dict[str, object], message: str) -> None:
    """A row without a label or an option is an error with file and line."""
    shutil.copytree(data / "winogrande", tmp_path, dirs_exist_ok=True)
    found = rows(tmp_path / "dev.jsonl")
    found[3] |= change
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    with pytest.raises(ValueError, match=rf"dev\.jsonl:4: {message}"):
        get_task("winogrande", data_dir=tmp_path).load("train")
