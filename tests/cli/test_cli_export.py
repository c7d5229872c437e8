"""The verb `export`: formats, what is exported, where it goes, and mistakes."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cli.commands import TRAIN, Run
from trimtab.cli.export import export
from trimtab.cli.parser import UsageError, build_parser, call

Exported = Callable[[str], None]


@pytest.fixture
def exported(run: Run) -> Exported:
    """The verb, in the folder of the model and the data."""
    parser = build_parser({"export": export})
    return lambda line: call(export, parser.parse_args(["export", *shlex.split(line)])["export"].as_dict())


def test_a_task_by_its_name(exported: Exported, capsys: pytest.CaptureFixture[str]) -> None:
    """The first word is the format; options of the task, and how many examples; what to do next is said."""
    exported("lm-eval --task listops-small --task_options.max_depth 2 --split validation --examples 3")
    folder = Path("exports/lm-eval/listops-small")
    assert len((folder / "prompts.jsonl").read_text().splitlines()) == 3
    assert json.loads((folder / "task.json").read_text())["options"]["max_depth"] == 2
    said = capsys.readouterr().out
    assert "3 examples of validation" in said
    assert f"--include_path {folder} --tasks trimtab_listops_small" in said


def test_the_task_of_a_run(run: Run, exported: Exported) -> None:
    """An adapter knows what it was trained on."""
    assert run(f"{TRAIN} --out run") == 0
    exported("lm-eval --adapter run --out words")
    prompts = [json.loads(line)["prompt"] for line in Path("words/prompts.jsonl").read_text().splitlines()]
    assert sorted(prompts) == ["ab\n", "bc\n", "cde\n", "def\n"]


def test_the_vectors_of_a_run(run: Run, exported: Exported, capsys: pytest.CaptureFixture[str]) -> None:
    """From the run directory or from the weights in it."""
    assert run(f"{TRAIN} --method 1-vec --learning_rate 0.5 --out run") == 0
    capsys.readouterr()
    exported("lm-eval-steered --adapter run")
    assert "3 vectors in exports/lm-eval-steered/run.pt" in capsys.readouterr().out
    exported("lm-eval-steered --adapter run/weights --model model --out other.pt")
    first, second = (torch.load(path) for path in ("exports/lm-eval-steered/run.pt", "other.pt"))
    assert list(first) == list(second) == ["layers.0", "layers.1", "layers.2"]
    assert all(torch.equal(first[name]["steering_vector"], second[name]["steering_vector"]) for name in first)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("lm-evl --task listops-small", "Did you mean 'lm-eval'"),
        ("lm-eval", "Which task?"),
        ("lm-eval --task listops-smal", "Did you mean 'listops-small'"),
        ("lm-eval --task listops-small --split tets", "Did you mean 'test'"),
        ("lm-eval-steered --task listops-small", "give --adapter"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(exported: Exported, line: str, message: str) -> None:
    """As every verb's."""
    with pytest.raises(UsageError, match=message):
        exported(line)
    assert not Path("exports").exists()
