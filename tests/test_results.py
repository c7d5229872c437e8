"""Records: accuracy with its error bar, and JSON that is read back or refused."""

from __future__ import annotations

import json
import math
import random
import statistics
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from made_runs import made_run
from trimtab.results import COMMAND_VARIABLE, Accuracy, Environment, EvaluationResult, Record, RunRecord
from trimtab.results.environment import git_state
from trimtab.sweeps import load_results


def result() -> EvaluationResult:
    """Any result."""
    return EvaluationResult(
        model="tiny",
        task="last-letter",
        split="test",
        accuracy=Accuracy(184, 400),
        unparsed=3,
        seconds=1.5,
        generated_tokens=1000,
        records=None,
        environment=Environment.collect("cpu"),
    )


def test_accuracy_prints_its_error_and_n() -> None:
    """46 % of 400 is 46.0 ± 2.5 %."""
    assert str(Accuracy(184, 400)) == "46.0 ± 2.5 % (n = 400)"
    assert "46.0 ± 2.5 % (n = 400)" in str(result())


def test_standard_error_is_the_spread_of_repeated_measurements() -> None:
    """Drawn 4,000 times, the share of 200 coins with p = 0.3 spreads by the error that Accuracy states."""
    draw = random.Random(0)
    shares = [sum(draw.random() < 0.3 for _ in range(200)) / 200 for _ in range(4000)]
    assert Accuracy(60, 200).standard_error == pytest.approx(statistics.stdev(shares), rel=0.05)


def test_a_command_holds_no_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the program's nor those of its arguments: they are as seen from the working directory."""
    monkeypatch.chdir(tmp_path)
    words = [str(tmp_path / "bin/trimtab"), "train", "--out", str(tmp_path / "a b"), f"--model={tmp_path.parent / 'm'}"]
    monkeypatch.setattr(sys, "argv", [*words, "--r=4"])
    assert Environment.collect("cpu").command == "trimtab train --out 'a b' --model=../m --r=4"


@pytest.mark.parametrize(("correct", "n"), [(0, 0), (5, 4), (-1, 4)])
def test_an_impossible_accuracy_is_refused(correct: int, n: int) -> None:
    """No accuracy of nothing."""
    with pytest.raises(ValueError, match="accuracy"):
        Accuracy(correct, n)


def test_a_record_comes_back_from_json(tmp_path: Path) -> None:
    """Equal in every field, with the schema's version in the file."""
    result().save(tmp_path / "result.json")
    assert EvaluationResult.load(tmp_path / "result.json") == result()
    assert json.loads((tmp_path / "result.json").read_text())["schema_version"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 99}, "schema version 99"),
        ({"kind": "TrainingResult"}, "kind 'TrainingResult'"),
        ({"acuracy": 1}, "Did you mean 'accuracy'"),
    ],
)
def test_a_foreign_record_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    """Another version, kind or key is named, not skipped."""
    result().save(tmp_path / "result.json")
    content = json.loads((tmp_path / "result.json").read_text()) | change
    (tmp_path / "result.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        EvaluationResult.load(tmp_path / "result.json")


def test_a_record_without_a_key_is_refused(tmp_path: Path) -> None:
    """The missing key is named."""
    result().save(tmp_path / "result.json")
    content = json.loads((tmp_path / "result.json").read_text())
    del content["seconds"]
    (tmp_path / "result.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="lacks seconds"):
        EvaluationResult.load(tmp_path / "result.json")


def test_a_record_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """It lacks what that version did not write: that is not known, and is not taken for something else."""
    result().save(tmp_path / "result.json")
    content = json.loads((tmp_path / "result.json").read_text())
    del content["split_note"]
    (tmp_path / "result.json").write_text(json.dumps(content))
    assert EvaluationResult.load(tmp_path / "result.json").split_note is None
    content = made_run(together=6, split_note="dev").to_dict()
    del content["together"], content["split_note"]
    old = RunRecord.from_dict(content, tmp_path)
    assert (old.together, old.split_note) == (None, None)


def test_committed_records_are_read() -> None:
    """Those of the study, which an earlier version wrote."""
    committed = Path(__file__).parents[1] / "benchmarks" / "results" / "study-runs.jsonl"
    assert {record.task for record in load_results(committed)} == {"listops-small"}


def testgit_state_is_the_commit_of_a_tracked_file_only(tmp_path: Path) -> None:
    """A file that lies in a repository without being part of it has no commit; a change makes it dirty."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "code.py").write_text("one")
    (tmp_path / "stray.py").write_text("two")
    subprocess.run([*git, "add", "code.py"], check=True)
    subprocess.run([*git, "commit", "-qm", "first"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert git_state(tmp_path / "code.py") == head
    assert git_state(tmp_path / "stray.py") is None
    (tmp_path / "code.py").write_text("three")
    assert git_state(tmp_path / "code.py") == f"{head}-dirty"


def test_value_and_error_share_a_scale() -> None:
    """Both are shares of one, not percents."""
    half = Accuracy(50, 100)
    assert half.value == 0.5
    assert half.standard_error == pytest.approx(math.sqrt(0.25 / 100))


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    """Which file it is, and what can be done."""
    (tmp_path / "result.json").write_text('{"schema_ver')
    with pytest.raises(ValueError, match=r"result\.json holds no record.*Delete it"):
        EvaluationResult.load(tmp_path / "result.json")


def test_a_process_that_works_for_another_names_that_ones_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user typed, not the line that started the worker."""
    monkeypatch.setattr(sys, "argv", ["/opt/worker.py", "--port", "8"])
    monkeypatch.setenv(COMMAND_VARIABLE, "trimtab sweep recipe.yaml")
    assert Environment.collect("cpu").command == "trimtab sweep recipe.yaml"


def test_what_is_not_finite_is_null(tmp_path: Path) -> None:
    """JSON has no NaN: null in the file and in `to_dict`, NaN again where a number belongs, None where it may be."""
    run = replace(made_run(), loss=math.nan, loss_curve=[[1.0, 2.0], [2.0, math.inf]], split_note=None)
    run.save(tmp_path / "run.json")
    content = json.loads((tmp_path / "run.json").read_text(), parse_constant=pytest.fail)
    assert (content["loss"], content["loss_curve"]) == (None, [[1.0, 2.0], [2.0, None]])
    loaded = RunRecord.load(tmp_path / "run.json")
    assert math.isnan(loaded.loss)
    assert math.isnan(loaded.loss_curve[1][1])
    assert loaded.accuracy == run.accuracy

    @dataclass(frozen=True)
    class Open(Record):
        chosen: float | None
        rates: list[float]

    Open(None, [0.0, -math.inf]).save(tmp_path / "open.json")
    opened = Open.load(tmp_path / "open.json")
    assert opened.chosen is None
    assert opened.rates[0] == 0
    assert math.isnan(opened.rates[1])
