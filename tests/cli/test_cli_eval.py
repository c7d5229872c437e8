"""Evaluation from the command line: of runs, of adapters from elsewhere, and of files that are not trusted."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cli.commands import EVAL, TRAIN, Run
from tiny_language import byte_tokenizer, tiny_model
from trimtab.cli import loading
from trimtab.tasks import get_task


def test_eval_needs_no_more_than_the_run(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Base, task and its options come from the run; accuracy has its n; every answer is written."""
    options = "--task listops-small --task_options.max_depth 2 --examples 4 --learning_rate 0.5"
    assert run(f"train --model model {options} --batch_size 2 --device cpu --dtype float32 --out run") == 0
    capsys.readouterr()
    assert run(f"{EVAL} --adapter run --examples 5") == 0
    said = capsys.readouterr().out
    assert re.search(r"listops-small \(test\): \d+\.\d ± \d+\.\d % \(n = 5\)", said)
    note = get_task("listops-small", max_depth=2).split_note
    assert f"splits: {note}\n" in said
    directory = Path("run/evaluation/listops-small-test")
    result = json.loads((directory / "result.json").read_text())
    records = [json.loads(line) for line in (directory / "records.jsonl").read_text().splitlines()]
    assert result["split_note"] == note
    assert result["accuracy"] == {"correct": sum(record["correct"] for record in records), "n": 5}
    assert all(record["prompt"].count("[") == 1 for record in records)  # depth 2: no list inside a list
    assert run(f"{EVAL} --adapter run --examples 5") == 1  # there is a result
    assert run(f"{EVAL} --adapter run --examples 5 --overwrite") == 0


def outputs(directory: str) -> list[str]:
    """The answers of an evaluation."""
    lines = Path(directory, "records.jsonl").read_text().splitlines()
    return [json.loads(line)["output"] for line in lines]


def test_strength_0_answers_as_the_base_and_an_adapter_loads_from_either_place(run: Run) -> None:
    """A run directory and its weights are the same adapter; at strength 0 it is the base."""
    assert run(f"{TRAIN} --learning_rate 0.5 --adapter_options.init_scale 3.0 --out run") == 0
    for name, choice in {
        "base": "--model model",
        "off": "--adapter run --strength 0",
        "on": "--adapter run",
        "weights": "--adapter run/weights --model model",
        "half": "--adapter run --strength 0.5",
    }.items():
        assert run(f"{EVAL} {choice} --task data.jsonl --out {name}") == 0
    assert outputs("off") == outputs("base")
    assert outputs("on") == outputs("weights")
    assert len({str(outputs(name)) for name in ("base", "half", "on")}) == 3


@pytest.mark.parametrize("method", ["post-block", "lora"])
def test_an_adapter_that_does_not_fit_or_is_cut_off_is_refused(
    run: Run, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    """Another base, a truncated file and a missing one: exit code 1 and a sentence."""
    assert run(f"{TRAIN} --method {method} --out run") == 0
    tiny_model(hidden_size=64).save_pretrained("wider")
    byte_tokenizer().save_pretrained("wider")
    assert run(f"{EVAL} --adapter run --model ./wider --task data.jsonl") == 1
    assert "another base model" in capsys.readouterr().err
    weights = Path("run/weights/adapter_model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-8])
    assert run(f"{EVAL} --adapter run --task data.jsonl") == 1
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in said


@pytest.mark.parametrize("method", ["post-block", "lora"])
def test_a_pickled_adapter_is_refused(run: Run, capsys: pytest.CaptureFixture[str], method: str) -> None:
    """Unpickling can run code; PEFT would do it."""
    assert run(f"{TRAIN} --method {method} --out run") == 0
    weights = Path("run/weights/adapter_model.safetensors")
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    assert run(f"{EVAL} --adapter run/weights --model model --task data.jsonl") == 1
    assert "is a pickle" in capsys.readouterr().err


def test_of_an_adapter_on_the_hub_only_safetensors_is_fetched(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repository with nothing but a pickle is refused, and the pickle stays there."""
    fetched: list[str] = []

    def download(name: str, allow_patterns: list[str]) -> str:
        fetched.extend(allow_patterns)
        Path("snapshot").mkdir()
        return "snapshot"

    monkeypatch.setattr(loading, "snapshot_download", download)
    assert run(f"{EVAL} --adapter somebody/adapter --model model --task data.jsonl") == 1
    assert "There is no adapter at snapshot" in capsys.readouterr().err
    assert fetched == ["*.json", "*.safetensors"]


def test_evaluations_of_adapters_from_elsewhere_do_not_collide(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Two directories called weights; a result that is there is seen before a model is loaded."""
    for name in ("a", "b"):
        assert run(f"{TRAIN} --out {name}") == 0
        assert run(f"{EVAL} --adapter {name}/weights --model model --task data.jsonl") == 0
        assert Path(f"runs/{name}/weights/evaluation/jsonl-test/result.json").is_file()
    capsys.readouterr()
    assert run(f"{EVAL} --adapter a/weights --model ./nowhere --task data.jsonl") == 1
    assert "holds a result" in capsys.readouterr().err


def contents(directory: str) -> dict[Path, bytes]:
    """Every file of a directory."""
    return {path: path.read_bytes() for path in Path(directory).rglob("*") if path.is_file()}


@pytest.mark.parametrize("overwrite", ["", "--overwrite"])
def test_a_training_run_is_no_place_for_an_evaluation(
    run: Run, capsys: pytest.CaptureFixture[str], overwrite: str
) -> None:
    """Told before a model is loaded; a finished run keeps its result, and an unfinished one can go on."""
    assert run(f"{TRAIN} --out run") == 0
    shutil.copytree("run", "unfinished")
    Path("unfinished/result.json").unlink()
    for directory in ("run", "unfinished"):
        before = contents(directory)
        assert run(f"{EVAL} --model ./nowhere --task data.jsonl --out {directory} {overwrite}") == 1
        assert f"error: {directory} holds a training run" in capsys.readouterr().err
        assert contents(directory) == before
    assert run(f"{TRAIN} --out unfinished") == 0


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("records.jsonl", '{"mine": 1}\n', "here holds a records.jsonl without a result.json"),
        ("result.json", '{"kind": "DistillationResult"}', "here holds a result.json that is no evaluation's"),
        ("result.json", "[1, 2]", "here holds a result.json that is no evaluation's"),
        ("result.json", '{"kind": "Eval', "here holds a result.json that is cut off or no JSON"),
    ],
)
def test_overwrite_replaces_an_evaluation_and_nothing_else(
    run: Run, capsys: pytest.CaptureFixture[str], file: str, content: str, message: str
) -> None:
    """A file of the user's, or a result of something else, stays; told before a model is loaded."""
    Path("here").mkdir()
    Path("here", file).write_text(content)
    for overwrite in ("", "--overwrite"):
        assert run(f"{EVAL} --model ./nowhere --task data.jsonl --out here {overwrite}") == 1
        assert f"error: {message}" in capsys.readouterr().err
        assert contents("here") == {Path("here", file): content.encode()}


def test_an_evaluation_does_not_go_into_a_file(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Told before a model is loaded."""
    assert run(f"{EVAL} --model ./nowhere --task data.jsonl --out data.jsonl") == 1
    assert "data.jsonl is a file, not a directory" in capsys.readouterr().err
