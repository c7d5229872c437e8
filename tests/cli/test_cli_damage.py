"""Files that are cut off or incomplete: one line that names the file, no traceback."""

from __future__ import annotations

import json
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
    digests = whole.pop("data_files")
    assert digests.keys() == {"data.jsonl"}
    for part in whole:
        file.write_text(yaml.safe_dump({k: v for k, v in whole.items() if k != part}))
        refused(run, capsys, f"{EVAL} --adapter run", "run/recipe.yaml: The recipe", f"'{part}'", code=2)


@pytest.mark.parametrize("method", ["lora", "post-block"])
def test_an_adapter_whose_configuration_is_damaged(run: Run, capsys: pytest.CaptureFixture[str], method: str) -> None:
    """Cut off, empty, or without the method: of a run, and of a directory that PEFT saved."""
    assert run(f"{TRAIN} --method {method} --out run") == 0
    file = Path("run/weights/adapter_config.json")
    whole = file.read_text()
    settings = json.loads(whole)
    damages = {
        whole[: len(whole) // 2]: f"{file} is truncated or damaged: ",
        "": f"{file} is truncated or damaged: ",
        "[]": f"{file} is damaged: it holds no JSON object",
        json.dumps({k: v for k, v in settings.items() if k != "peft_type"}): f"{file} is damaged: it lacks peft_type",
        json.dumps({**settings, "peft_type": "LORAA"}): f"Unknown peft_type in {file} 'LORAA'. Did you mean 'LORA'?",
        json.dumps({**settings, "peft_type": None}): f"Unknown peft_type in {file} None.",
    }
    for content, message in damages.items():
        file.write_text(content)
        for adapter in ("--adapter run", "--adapter run/weights", "--adapter run/weights --model model"):
            refused(run, capsys, f"{EVAL} {adapter} --task data.jsonl", message)


def test_an_adapter_that_names_no_base(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """PEFT writes null where the base was built in memory: the user says which one it was."""
    assert run(f"{TRAIN} --out run") == 0
    file = Path("run/weights/adapter_config.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": None}))
    line = f"{EVAL} --adapter run/weights --task data.jsonl"
    refused(run, capsys, line, f"{file} names no base", "give --model")
    assert run(f"{line} --model model") == 0


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_base_model_of_which_a_json_file_is_cut_off(run: Run, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """transformers' errors name no file; without generation_config.json it goes on in silence."""
    shutil.copytree("model", "part")
    cut(Path("part", name))
    refused(run, capsys, "train --model ./part --task data.jsonl", f"part/{name} is truncated or damaged: ")
    Path("part", name).write_text("[]")
    refused(run, capsys, "train --model ./part --task data.jsonl", f"part/{name} is damaged: it holds no JSON object")


def test_a_run_of_before_digests_were_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it lacks is no damage: it answers, talks, and is repeated by its recipe."""
    assert run(f"{TRAIN} --out run") == 0
    old = recipe("run")
    del old["data_files"]
    Path("run/recipe.yaml").write_text(yaml.safe_dump(old))
    monkeypatch.setattr("builtins.input", lambda *_: "/quit")
    assert run(f"{EVAL} --adapter run") == 0
    assert run("chat --adapter run --device cpu --dtype float32") == 0
    assert run("train --config run/recipe.yaml --out again") == 0


def test_a_run_is_not_resumed_with_other_data(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """The edited file is named with both digests."""
    assert run(f"{TRAIN} --out run") == 0
    Path("run/result.json").unlink()
    with Path("data.jsonl").open("a") as file:
        file.write('{"prompt": "x", "completion": "y"}\n')
    digest = recipe("run")["data_files"]["data.jsonl"]
    refused(
        run, capsys, f"{TRAIN} --out run", f"run holds another run, which differs in data_files.data.jsonl ('{digest}"
    )
