"""The hash of a run: what changes it, and what does not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeps.small_sweep import save_small_task
from trimtab.sweeps import Configuration, Grid, SweepRecipe
from trimtab.sweeps.configuration import canonical_json, content_hash
from trimtab.tasks.listops import ListOpsSmall

ROOT = Path(__file__).parents[2]


def run(**changes: Any) -> Configuration:
    """The only trial-free run of a recipe."""
    given: dict[str, Any] = {"models": ["a"], "tasks": ["listops-small"], "methods": ["lora"], "learning_rates": [1e-3]}
    (cell,) = Grid.of(SweepRecipe(**{**given, **changes})).cells
    return next(cell.runs())


def test_canonical_json_is_the_same_for_equal_content() -> None:
    """Order, 1.0 for 1, tuples for lists and paths for text make no difference."""
    one = {"b": [1, 2.5], "a": {"x": 1.0, "p": Path("d/e"), "none": None, "yes": True}}
    other = {"a": {"yes": True, "none": None, "p": "d/e", "x": 1}, "b": (1.0, 2.5)}
    assert canonical_json(one) == canonical_json(other)
    assert canonical_json(one) == '{"a":{"none":null,"p":"d/e","x":1,"yes":true},"b":[1,2.5]}'


def test_the_hash_is_that_of_the_canonical_json() -> None:
    """Of the text itself, so that any program can make it."""
    assert content_hash({"b": 1.0, "a": "é"}) == hashlib.sha256('{"a":"é","b":1}'.encode()).hexdigest()[:16]


def test_a_number_that_is_not_finite_has_no_hash() -> None:
    """JSON cannot say it."""
    with pytest.raises(ValueError, match="JSON"):
        content_hash({"rate": float("nan")})


@pytest.mark.parametrize(
    "changes",
    [
        {"methods": [{"method": "lora", "label": "another name"}]},
        {"training": {"epochs": 1.0}},
        {"training": {"checkpoint_every": 7}},
        {"training": {"report_to": "tensorboard"}},
        {"tasks": [{"name": "listops-small", "options": {"max_depth": 3}}]},  # its default
        {"keep": "nothing"},
        {"learning_rates": [1e-3], "selection_seeds": [5]},
        {"validation_examples": 3},  # not what this run is scored on
    ],
)
def test_what_does_not_change_the_numbers_does_not_change_the_hash(changes: dict[str, Any]) -> None:
    """Labels, defaults written out, how often a checkpoint is kept."""
    assert run(**changes).hash == run().hash


@pytest.mark.parametrize(
    "changes",
    [
        {"models": ["b"]},
        {"tasks": ["listops"]},
        {"tasks": [{"name": "listops-small", "options": {"max_depth": 2}}]},
        {"methods": [{"method": "lora", "r": 4}]},
        {"methods": [{"method": "lora", "schedule": "constant"}]},
        {"learning_rates": [2e-3]},
        {"seeds": [1]},
        {"training": {"epochs": 2}},
        {"training": {"dtype": "float32"}},
    ],
)
def test_what_changes_the_weights_changes_both_hashes(changes: dict[str, Any]) -> None:
    """Model, task, method, rate, seed, length, precision."""
    assert run(**changes).training_hash != run().training_hash
    assert run(**changes).hash != run().hash


@pytest.mark.parametrize("changes", [{"stage": "validation"}, {"test_examples": 5}, {"batch_tokens": 64}])
def test_what_is_scored_changes_the_run_and_not_the_training(changes: dict[str, Any]) -> None:
    """One training, several runs."""
    assert run(**changes).training_hash == run().training_hash
    assert run(**changes).hash != run().hash


def test_other_data_under_the_same_name_is_another_run(tmp_path: Path) -> None:
    """The content of a task's files is part of the configuration."""
    task = save_small_task(tmp_path)
    before = run(tasks=[task])
    assert run(tasks=[task]).hash == before.hash
    with (tmp_path / "test.jsonl").open("a") as file:
        file.write('{"prompt": "more\\n", "completion": "=e"}\n')
    assert run(tasks=[task]).hash != before.hash


def test_other_files_in_the_data_dir_are_another_run(tmp_path: Path) -> None:
    """BoolQ cuts its splits from the files that are there: with another file there are other splits."""
    (tmp_path / "dev.jsonl").write_text("{}\n")
    task = {"name": "boolq", "options": {"data_dir": str(tmp_path)}}
    before = run(tasks=[task])
    assert before.hash == run(tasks=[task]).hash
    (tmp_path / "train.jsonl").write_text("{}\n")
    assert before.training_hash != run(tasks=[task]).training_hash


@pytest.mark.parametrize(
    ("name", "options", "read"),
    [("boolq", {}, []), ("aqua", {}, ["train_flan_cot_subset.tsv"]), ("aqua", {"mathqa": True}, ["mathqa_dev.json"])],
)
def test_files_that_a_task_does_not_read_are_not_its_configuration(
    tmp_path: Path, name: str, options: dict[str, Any], read: list[str]
) -> None:
    """An edited README beside the data renames no run; the files that stand in for others, or are added, do."""
    (tmp_path / "dev.jsonl").write_text("{}\n")
    task = {"name": name, "options": {"data_dir": str(tmp_path), **options}}
    before = run(tasks=[task]).training_hash
    for other in ("README.md", "test.txt"):
        (tmp_path / other).write_text("about the data")
    assert run(tasks=[task]).training_hash == before
    for other in read:
        (tmp_path / other).write_text("[]")
        assert run(tasks=[task]).training_hash != before


def test_finished_runs_of_the_study_keep_their_names() -> None:
    """What is on record is found again: no change of the code renames a run whose numbers it leaves as they are."""
    recipe = yaml.safe_load((ROOT / "recipes" / "smol-study.yaml").read_text())
    grid = Grid.of(SweepRecipe(**{key: value for key, value in recipe.items() if key != "out"}))
    lines = (ROOT / "benchmarks" / "results" / "study-runs.jsonl").read_text().splitlines()
    finished = {(r["method"], r["learning_rate"], r["seed"], r["split"]): r["run"] for r in map(json.loads, lines)}
    runs = [run for cell in grid.cells for run in cell.runs()]
    known = [run for run in runs if (run.label, run.learning_rate, run.seed, run.split) in finished]
    assert len(known) > 100
    for run in known:
        assert finished[run.label, run.learning_rate, run.seed, run.split] == run.hash, run.describe()


def test_a_task_with_new_splits_or_rules_has_new_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A result of the older version is not taken for one of the new version; a first version is not in the name."""
    before = run()
    assert "version" not in before.trained["task"]
    monkeypatch.setattr(ListOpsSmall, "version", 2)
    assert run().training_hash != before.training_hash
