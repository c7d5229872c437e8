"""Files that are cut off or incomplete: one line that names the file, no traceback."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from cli.commands import EVAL, TRAIN, Run, recipe


def refused(run: Run, capsys: pytest.CaptureFixture[str], line: str, *said: str, code: int = 1) -> None:
    """The command fails, and its error says so."""
    capsys.readouterr()
    assert run(line) == code
    words = capsys.readouterr().err
    assert "Traceback" not in words
    (error,) = [line for line in words.splitlines() if line.startswith("error: ")]
    for part in said:
        assert part in error, error


def cut(path: Path) -> None:
    """Leave the first half of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def test_a_base_model_that_is_cut_off(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """As a download that was interrupted leaves it."""
    shutil.copytree("model", "part")
    cut(Path("part/model.safetensors"))
    refused(run, capsys, "train --model ./part --task data.jsonl", "part/model.safetensors is truncated or damaged")


def test_a_base_model_that_lacks_a_tensor(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """transformers would draw the fourth layer at random."""
    shutil.copytree("model", "part")
    config = Path("part/config.json")
    layers = '"num_hidden_layers": '
    number = int(config.read_text().partition(layers)[2][0])
    config.write_text(config.read_text().replace(f"{layers}{number}", f"{layers}{number + 1}"))
    message = f"lacks model.layers.{number}."
    refused(run, capsys, "train --model ./part --task data.jsonl", "part does not fit its configuration", message)


@pytest.mark.parametrize("method", ["sft", "lora", "post-block"])
def test_a_run_that_is_cut_off(run: Run, capsys: pytest.CaptureFixture[str], method: str) -> None:
    """Its weights, or its recipe, in the middle or behind a setting."""
    assert run(f"{TRAIN} --method {method} --out run") == 0
    (weights,) = Path("run/weights").glob("*.safetensors")
    shutil.copytree("run", "cut")
    cut(Path("cut/weights") / weights.name)
    refused(run, capsys, f"{EVAL} --adapter cut", f"cut/weights/{weights.name} is truncated or damaged")

    whole = recipe("run")
    file = Path("run/recipe.yaml")
    file.write_text(yaml.safe_dump(whole)[:-3] + ": [")
    refused(run, capsys, f"{EVAL} --adapter run", "run/recipe.yaml is cut off or damaged", code=2)
    refused(run, capsys, "train --config run/recipe.yaml", "Problems parsing config", code=2)

    for part, key in (("task", "name"), ("method", "learning_rate"), ("method", "adapter"), ("task", "path")):
        file.write_text(yaml.safe_dump({**whole, part: {k: v for k, v in whole[part].items() if k != key}}))
        refused(run, capsys, f"{EVAL} --adapter run", "run/recipe.yaml: The recipe", f"lacks '{key}'", code=2)
        refused(run, capsys, "train --config run/recipe.yaml", f"lacks '{key}'", code=2)
    for part in whole:
        file.write_text(yaml.safe_dump({k: v for k, v in whole.items() if k != part}))
        refused(run, capsys, f"{EVAL} --adapter run", "run/recipe.yaml: The recipe", f"'{part}'", code=2)
