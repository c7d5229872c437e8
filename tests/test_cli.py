"""The command line: what it does, and what it says when something is wrong."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tiny_directory import save_tiny_model
from tiny_language import byte_tokenizer, tiny_model
from trimtab.cli import loading, main
from trimtab.cli.parser import build_parser
from trimtab.cli.verbs import VERBS
from trimtab.methods import METHODS

Run = Callable[[str], int]

TRAIN = "train --model model --task data.jsonl --max_steps 2 --batch_size 2 --device cpu --dtype float32"
EVAL = "eval --device cpu --dtype float32"
ROWS = [{"prompt": f"{word}\n", "completion": f"={word[-1]}"} for word in ("ab", "bc", "cde", "def")]


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, written once."""
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def run(saved_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line in an empty folder with a model and some data; gives the exit code."""
    monkeypatch.chdir(tmp_path)
    Path("model").symlink_to(saved_model)
    Path("data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def call(line: str) -> int:
        try:
            return main(shlex.split(line))
        except SystemExit as stopped:
            return int(stopped.code or 0)

    return call


def recipe(directory: str) -> dict[str, dict[str, object]]:
    """What a run says that it was."""
    return yaml.safe_load(Path(directory, "recipe.yaml").read_text())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("trian", "Did you mean train?"),
        (f"{TRAIN} --lerning_rate 1", "Did you mean --learning_rate?"),
        (f"{TRAIN} --method post-blok", "Did you mean 'post-block'?"),
        (f"{TRAIN} --site blok", "Did you mean 'block'?"),
        (f"{TRAIN} --intervention vectr", "Did you mean 'vector'?"),
        (f"{TRAIN} --positions last_promt", "Did you mean 'last_prompt'?"),
        (f"{TRAIN} --schedule cosin", "Did you mean 'cosine'?"),
        (f"{TRAIN} --adapter_options.taget_modules x", "Did you mean 'target_modules'?"),
        (f"{TRAIN} --r 0", "r=0"),
        (f"{TRAIN} --layers [-1]", "-1 is not the index of a layer"),
        (f"{TRAIN} --epochs 0", "epochs=0.0 must be positive"),
        (f"{TRAIN} --epochs many", "many"),
        ("train --task listops-smal", "Did you mean 'listops-small'?"),
        ("train --task listops-small --task_options.max_dept 2", "Did you mean 'max_depth'?"),
        ("train --task listops-small --task_options.max_depth 0", "max_depth must be"),
        ("train", "task"),
        ("train --config nowhere.yaml", "nowhere.yaml"),
        ("eval --task listops-small --split tets", "Did you mean 'test'?"),
        ("eval --model model --device cpu", "Which task?"),
        ("chat --temperature -1", "temperature=-1.0"),
        ("demo --methods.lorra {}", "Did you mean 'lora'?"),
    ],
)
def test_what_does_not_exist_is_named_with_the_nearest(
    run: Run, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    """Exit code 2, the nearest name, no traceback, and nothing written."""
    assert run(line) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train --model model --task missing.jsonl", "missing.jsonl"),
        ("train --model model --task broken.jsonl", "broken.jsonl:2"),
        ("train --model ./nowhere --task data.jsonl", "no such directory"),
        (f"{TRAIN} --layers [7]", "7"),
        (f"{TRAIN} --r 33", "33"),
        (f"{TRAIN} --out data.jsonl", "not a directory"),
        (f"{TRAIN} --out model", "something else"),
        (f"{TRAIN} --chat", "chat template"),
        ("eval --model model --task long.jsonl --device cpu", "context of 1,024"),
        ("eval --model model --task data.jsonl --strength 0.5", "give --adapter too"),
        ("eval --adapter nowhere --model model --task data.jsonl", "nowhere"),
        ("chat --model model --compare --device cpu", "nothing to compare"),
        ("chat --model model --form chat --device cpu", "no chat template"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    run: Run, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    """Exit code 1 and the library's own words, without a traceback."""
    Path("broken.jsonl").write_text(json.dumps(ROWS[0]) + "\n{\n")
    Path("long.jsonl").write_text(json.dumps({"prompt": "x" * 2000, "completion": "y"}) + "\n")
    assert run(line) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in said


def test_a_traceback_is_shown_on_request(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRIMTAB_TRACEBACK lets the error through."""
    monkeypatch.setenv("TRIMTAB_TRACEBACK", "1")
    with pytest.raises(ValueError, match="no such directory"):
        run("train --model ./nowhere --task data.jsonl")


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


def test_eval_needs_no_more_than_the_run(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Base, task and its options come from the run; accuracy has its n; every answer is written."""
    options = "--task listops-small --task_options.max_depth 2 --examples 4 --learning_rate 0.5"
    assert run(f"train --model model {options} --batch_size 2 --device cpu --dtype float32 --out run") == 0
    capsys.readouterr()
    assert run(f"{EVAL} --adapter run --examples 5") == 0
    assert re.search(r"listops-small \(test\): \d+\.\d ± \d+\.\d % \(n = 5\)", capsys.readouterr().out)
    directory = Path("run/evaluation/listops-small-test")
    result = json.loads((directory / "result.json").read_text())
    records = [json.loads(line) for line in (directory / "records.jsonl").read_text().splitlines()]
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


def test_the_methods_are_listed_with_their_counts(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every name; the count of post-block is 2 r d for each layer."""
    monkeypatch.setenv("COLUMNS", "160")
    assert run("methods --model model") == 0
    said = capsys.readouterr().out
    assert all(name in said for name in METHODS)
    (row,) = [line for line in said.splitlines() if re.match(r"\W+post-block ", line)]
    assert f" {2 * 8 * 32 * 3:,} " in row


def test_chat_reads_lines_and_answers_them(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages and commands from standard input, to the end of the file."""
    assert run(f"{TRAIN} --out run") == 0
    capsys.readouterr()
    lines = iter(["ab", "/strength 0.25", "/quit"])
    monkeypatch.setattr("builtins.input", lambda *_: next(lines))
    assert run("chat --adapter run --max_new_tokens 4 --device cpu --dtype float32") == 0
    said = capsys.readouterr().out
    assert "as plain text" in said
    assert "strength 0.25" in said


@pytest.mark.parametrize("verb", VERBS)
def test_help_explains_every_option(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each option of a verb has words of its own, from a docstring."""
    parser = build_parser(VERBS)
    with pytest.raises(SystemExit):
        parser.parse_args([verb, "--help"])
    assert f"trimtab [options] {verb}" in capsys.readouterr().out
    options = parser._subcommands_action.choices[verb]._actions
    assert [option.dest for option in options if not (option.help or "").strip()] == []
