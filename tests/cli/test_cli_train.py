"""Training from the command line: recipes, overrides, and the run directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from cli.commands import EVAL, TRAIN, Run, recipe


def test_the_command_line_overrides_the_recipe_and_the_recipe_the_method(run: Run) -> None:
    """What the run directory says is the method, changed by the file, changed by the words."""
    options = {
        "model": "model",
        "task": "data.jsonl",
        "method": "1-vec",
        "learning_rate": 1e-4,
        "max_steps": 3,
    }
    Path("recipe.yaml").write_text(yaml.safe_dump({**options, "batch_size": 2, "device": "cpu", "out": "run"}))
    assert run("train --config recipe.yaml --max_steps 1 --layers [0,2] --positions last_prompt") == 0
    written = recipe("run")
    assert written["method"]["name"] == "1-vec"
    assert written["method"]["learning_rate"] == 1e-4
    assert written["method"]["adapter"] == {
        "intervention": "vector",
        "layers": [0, 2],
        "positions": "last_prompt",
    }
    assert written["training"]["max_steps"] == 1


def test_an_option_that_a_recipe_misspells_is_named(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """A key of the file is held to the same names as the words."""
    Path("recipe.yaml").write_text("task: data.jsonl\nlearning_rat: 1.0e-3\n")
    assert run("train --config recipe.yaml") == 2
    assert "Did you mean learning_rate?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes",
    [
        "--method post-block-nonlinear --activation linear --r 2 --normalize",
        "--method lora --r 4 --adapter_options.lora_alpha 16",
        "--method post-block --site mlp --intervention vector --adapter_options.strength 0.5",
    ],
)
def test_the_recipe_of_a_run_repeats_it(run: Run, changes: str) -> None:
    """The run's own recipe.yaml is a recipe: the same settings and the same losses."""
    assert run(f"{TRAIN} {changes} --out first") == 0
    assert run("train --config first/recipe.yaml --out second") == 0
    assert recipe("second") == recipe("first")
    losses = [
        [json.loads(line)["loss"] for line in Path(name, "metrics.jsonl").read_text().splitlines()]
        for name in ("first", "second")
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 2


def test_a_finished_run_is_kept_unless_told_otherwise(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """The directory is named after task and method; a second run needs --overwrite."""
    assert run(TRAIN) == 0
    assert Path("runs/data/post-block/weights/adapter_model.safetensors").is_file()
    assert run(TRAIN) == 1
    assert run(f"{TRAIN} --r 4") == 1
    assert "method.adapter.r (8 there, 4 here)" in capsys.readouterr().err
    assert run(f"{TRAIN} --r 4 --overwrite") == 0


def test_a_hyphen_in_the_name_of_an_option_is_an_underscore(run: Run) -> None:
    """As most command lines have it, with a space or an equals sign; the names of methods keep theirs."""
    assert run(f"{TRAIN.replace('_', '-')} --learning-rate=0.25 --method post-block --out hyphens") == 0
    assert run(f"{TRAIN} --learning_rate 0.25 --method post-block --out underscores") == 0
    assert recipe("hyphens") == recipe("underscores")


@pytest.mark.parametrize("option", ["--data-dir", "--data_dir", "--task_options.data_dir", "--task-options.data_dir"])
def test_a_folder_of_local_files_has_a_short_option(run: Run, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is the task's option `data_dir`: the files are read from there, and a folder without them is named."""
    folder = Path(__file__).parents[1] / "data" / "winogrande"
    line = "train --model model --device cpu --dtype float32 --task winogrande --max_steps 1 --examples 4"
    assert run(f"{line} {option} {folder} --out run") == 0
    assert recipe("run")["task"]["data_dir"] == str(folder)
    assert run(f"{line} {option} nowhere --out other") != 0
    assert "nowhere" in capsys.readouterr().err


def test_a_path_in_the_home_is_found_as_no_shell_expands_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind an equals sign and quoted; no folder of the name ~ is made."""
    monkeypatch.setenv("HOME", str(Path.cwd()))
    assert run(f"{TRAIN} --out=~/run") == 0
    assert Path("run", "weights").is_dir()
    assert run(f"{EVAL} --adapter=~/run --examples 2") == 0
    assert run(f"{EVAL} --adapter ~/run --examples 2 --out ~/scores") == 0
    assert Path("scores", "result.json").is_file()
    assert not Path("~").exists()
