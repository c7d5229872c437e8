"""Data that is not there, orders, overlaps and the paper's split."""

from __future__ import annotations

import gzip
import logging
from pathlib import Path

import datasets
import pytest

from trimtab.tasks import Example, get_task
from trimtab.tasks.stored import in_random_order, validation_from_train, without_prompts_of


@pytest.mark.parametrize(
    "failure",
    [
        ConnectionError("Couldn't reach the hub"),
        ValueError("Couldn't find cache for google/boolq"),
        datasets.exceptions.DatasetNotFoundError("not found"),
        datasets.exceptions.DatasetGenerationError("broken"),
    ],
)
def test_without_the_hub_the_error_tells_of_data_dir(failure: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong at the hub, the error names the data set and the files that would do instead."""

    def unreachable(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(ConnectionError, match=r"'google/boolq'.*data_dir=<a folder with train.jsonl, dev.jsonl>"):
        get_task("boolq").load("test")


def test_a_missing_file_is_named(data: Path, tmp_path: Path) -> None:
    """A data_dir without the files, or that does not exist, is an error with the names of the files."""
    with pytest.raises(FileNotFoundError, match=r"'boolq' needs dev\.jsonl .*data_dir=.*nowhere"):
        get_task("boolq", data_dir=tmp_path / "nowhere").load("test")
    (tmp_path / "ARC-Challenge-Dev.jsonl").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"ARC-Challenge-Train\.jsonl, ARC-Challenge-Test\.jsonl"):
        get_task("arc_challenge", data_dir=tmp_path).load("validation")


def test_gzipped_files_and_string_paths(data: Path, tmp_path: Path) -> None:
    """A file may be gzipped, and data_dir may be a string; the examples are the same."""
    for file in (data / "boolq").iterdir():
        (tmp_path / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    plain, zipped = get_task("boolq", data_dir=data / "boolq"), get_task("boolq", data_dir=str(tmp_path))
    assert zipped.load("test") == plain.load("test")
    assert zipped.split_note == plain.split_note


def test_an_order_keeps_every_item() -> None:
    """in_random_order permutes; the seed decides."""
    items = list(range(50))
    assert sorted(in_random_order(items, 1)) == items
    assert in_random_order(items, 1) == in_random_order(items, 1) != in_random_order(items, 2)
    assert items == list(range(50))


def test_overlaps_are_removed_from_train_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    """Only training examples with a held-out prompt go, whatever their answer, and the log counts them."""
    train = [Example(prompt, "yes", "yes", prompt) for prompt in "abca"]
    with caplog.at_level(logging.WARNING):
        kept = without_prompts_of(train, [Example("a", "no", "no", "x")], "mine")
    assert [example.prompt for example in kept] == ["b", "c"]
    assert "mine: 2 training examples removed" in caplog.text


def test_the_papers_split_is_that_of_datasets() -> None:
    """80:20 with seed 42 are the rows that train_test_split gives for the data set itself."""
    rows = [f"row {i}" for i in range(37)]
    train, validation = validation_from_train(rows)
    expected = datasets.Dataset.from_dict({"text": rows}).train_test_split(test_size=0.2, seed=42)
    assert train == expected["train"]["text"]
    assert validation == expected["test"]["text"]
    assert (len(train), len(validation)) == (29, 8)
