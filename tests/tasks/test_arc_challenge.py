"""ARC-Challenge: texts of both published forms, labels, and letters in outputs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import pytest

from trimtab.tasks import SPLITS, get_task


def by_id(data_dir: Path) -> dict[str, Any]:
    task = get_task("arc_challenge", data_dir=data_dir)
    return {example.id: example for split in SPLITS for example in task.load(split)}


def test_the_text_of_an_example(data: Path) -> None:
    """Labels 1-4 become letters, in the options and in the answer."""
    example = by_id(data / "arc_challenge")["made_2"]
    assert example.prompt == (
        "Answer the following multiple-choice question.\nQuestion: What does a thermometer measure?\n"
        "(A) Mass\n(B) Temperature\n(C) Speed\n(D) Length\n"
    )
    assert example.completion == "Answer: (B) Temperature."
    assert example.label == "B"


def test_three_and_five_options(data: Path) -> None:
    """Questions may have three options or five; a full stop is not doubled."""
    examples = by_id(data / "arc_challenge")
    assert examples["made_3"].prompt.endswith("\n(A) A dog.\n(B) A hen.\n(C) A cow.\n")
    assert examples["made_3"].completion == "Answer: (B) A hen."
    assert examples["made_4"].prompt.endswith("\n(E) iron\n")


def test_held_out_questions_are_not_in_train(data: Path) -> None:
    """A training question that is in the test split is left out of train."""
    task = get_task("arc_challenge", data_dir=data / "arc_challenge")
    assert {example.id for example in task.load("train")} == {f"made_{i}" for i in range(1, 6)}
    assert {example.id for example in task.load("test")} == {"made_9", "made_10", "made_11"}


def test_a_question_with_other_options_is_in_one_split_only(data: Path, tmp_path: Path) -> None:
    """A copy of a test question with another word in an option, and a mark less, is left out of train."""
    shutil.copytree(data / "arc_challenge", tmp_path, dirs_exist_ok=True)
    row = json.loads((tmp_path / "ARC-Challenge-Test.jsonl").read_text().splitlines()[0])
    row["id"], row["question"]["stem"] = "copy", row["question"]["stem"].upper().replace("?", "")
    row["question"]["choices"][0]["text"] += " or so"
    with (tmp_path / "ARC-Challenge-Train.jsonl").open("a") as file:
        file.write(f"{json.dumps(row)}\n")
    train, before = (
        get_task("arc_challenge", data_dir=each).load("train") for each in (tmp_path, data / "arc_challenge")
    )
    assert train == before


def test_published_files(shared_data: Path) -> None:
    """The real files give the published counts but for 9 questions asked again; labels are those of the files."""
    task = get_task("arc_challenge", data_dir=shared_data / "arc_challenge")
    splits = {split: task.load(split) for split in SPLITS}
    assert {split: len(examples) for split, examples in splits.items()} == {
        "train": 1112,
        "validation": 297,
        "test": 1172,
    }
    keys = {}
    for line in (shared_data / "arc_challenge" / "ARC-Challenge-Test.jsonl").read_text().splitlines():
        row = json.loads(line)
        keys[row["id"]] = row["answerKey"].translate(str.maketrans("1234", "ABCD"))
    assert {example.id: example.label for example in splits["test"]} == keys
    assert all(task.parse(e.completion) == e.label for examples in splits.values() for e in examples)


def test_the_hub_gives_the_same_examples(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's columns and the Allen Institute's files make the same examples; the revision is pinned."""

    def hub(name: str, config: str, revision: str) -> dict[str, datasets.Dataset]:
        assert (name, config) == ("allenai/ai2_arc", "ARC-Challenge")
        assert len(revision) == 40
        files = {"train": "Train", "validation": "Dev", "test": "Test"}
        return {split: datasets.Dataset.from_list(columns(file)) for split, file in files.items()}

    def columns(file: str) -> list[dict[str, Any]]:
        rows = (data / "arc_challenge" / f"ARC-Challenge-{file}.jsonl").read_text().splitlines()
        return [
            {
                "id": row["id"],
                "question": row["question"]["stem"],
                "choices": {
                    "text": [choice["text"] for choice in row["question"]["choices"]],
                    "label": [choice["label"] for choice in row["question"]["choices"]],
                },
                "answerKey": row["answerKey"],
            }
            for row in map(json.loads, rows)
        ]

    monkeypatch.setattr(datasets, "load_dataset", hub)
    local, remote = get_task("arc_challenge", data_dir=data / "arc_challenge"), get_task("arc_challenge")
    for split in SPLITS:
        assert remote.load(split, seed=3) == local.load(split, seed=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answerKey": "F"}, "the answer 'F' is not one of the labels"),
        ({"answerKey": 2}, "'answerKey' must be a str, not int"),
        ({"id": ""}, "'id' is empty"),
        ({"question": "a string"}, "no key 'choices'"),
        ({"question": {"stem": "Why?", "choices": []}}, "0 choices; 2 to 5"),
        ({"question": {"stem": "Why?", "choices": ["a", "b"]}}, "a choice must be an object, not str"),
        (
            {"question": "Why?", "choices": {"text": ["a", "b"], "label": ["A"]}},
            "'label' must be a str, not NoneType",
        ),
    ],
)
def test_a_bad_row_is_named_with_its_line(data: Path, tmp_path: Path, change: dict[str, object], message: str) -> None:
    """A row that is no question is an error with file and line."""
    shutil.copytree(data / "arc_challenge", tmp_path, dirs_exist_ok=True)
    file = tmp_path / "ARC-Challenge-Dev.jsonl"
    lines = file.read_text().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | change)
    file.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=rf"ARC-Challenge-Dev\.jsonl:2: .*{message}"):
        get_task("arc_challenge", data_dir=tmp_path).load("validation")


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("Answer: (B) Temperature.", "B"),
        ("answer: b", None),
        ("answer: (b) temperature", "B"),
        ("Answer: B", "B"),
        ("Answer: B. Temperature", "B"),
        ("Answer:\nB\n", "B"),
        ("Answer: **B**", "B"),
        ("Answer: [B]", "B"),
        ("The correct answer is (C).", "C"),
        ("The answer is: D", "D"),
        ("Answer: (A) Mass. Answer: (D) Length.", "A"),
        ("Answer: Mass.\nQuestion: What?\n(A) x\nAnswer: (A) x.", None),
        ("Answer: (A) Mass. Answer: (", "A"),
        ("B", "B"),
        ("(C) Speed", "C"),
        ("B) Temperature", "B"),
        ("I would take (B), since ...", "B"),
        ("either (A) or (B)", None),
        ("Answer: Temperature.", None),
        ("Answer: A magnet.", None),
        ("A magnet.", None),
        ("Answer: vitamin C", None),
        ("vitamin C", None),
        ("Answer: Carbon", None),
        ("Answer: (F) other", None),
        ("Answer:", None),
        ("", None),
    ],
)
def test_letters_in_outputs(output: str, answer: str | None) -> None:
    """The stated letter counts; an option's text, an article or a vitamin is no letter."""
    assert get_task("arc_challenge").parse(output) == answer
