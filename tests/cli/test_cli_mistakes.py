"""What the command line says when something is wrong."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from cli.commands import ROWS, TRAIN, Run


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


@pytest.mark.parametrize("verb", ["eval --task data.jsonl", "chat", "analyze --task data.jsonl"])
@pytest.mark.parametrize("path", ["{here}/nowhere", "./nowhere", "~/nowhere", "no/where/at/all", "nowhere/", "empty"])
def test_a_path_without_an_adapter_is_never_asked_of_the_hub(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, verb: str, path: str
) -> None:
    """Whatever it begins with; an empty directory is named with what it lacks, before the base is loaded."""
    monkeypatch.setattr("trimtab.cli.loading.snapshot_download", None)
    Path("empty").mkdir()
    assert run(f"{verb} --model ./no-base --adapter {path.format(here=Path.cwd())} --device cpu") == 1
    said = capsys.readouterr().err.splitlines()[-1]
    why = "the directory has no adapter_config.json, nor a config.json" if path == "empty" else "no such directory"
    assert re.fullmatch(rf"error: There is no adapter at [\w/.~-]*(nowhere|all|empty): {why}\.", said)


def test_an_adapter_that_the_hub_does_not_give_may_be_a_path(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two words with a slash can be either; the hub's own words follow."""

    def unknown(name: str, allow_patterns: list[str]) -> str:
        raise OSError("401 Client Error")

    monkeypatch.setattr("trimtab.cli.loading.snapshot_download", unknown)
    assert run("eval --task data.jsonl --model model --adapter run/weights") == 1
    said = capsys.readouterr().err
    assert "no adapter at run/weights: no such directory, and the hub gives none of that name: 401" in said


@pytest.mark.parametrize(
    "line",
    [
        "eval --task data.jsonl --model {}",
        "chat --model {}",
        "analyze {} --task data.jsonl",
        "analyze model --task data.jsonl --tuned {}",
        "advise {} --task data.jsonl",
        "distill {} model --task data.jsonl",
        "distill model {} --task data.jsonl",
        "methods --model {}",
        "train --task data.jsonl --model {}",
    ],
)
def test_a_directory_without_a_model_is_named(run: Run, capsys: pytest.CaptureFixture[str], line: str) -> None:
    """An empty one, with what it lacks, and one that is not there."""
    Path("empty").mkdir()
    lacks, missing = "neither config.json nor adapter_config.json", "no such directory"
    for path, why in (("empty", lacks), ("/nonexist", missing), ("./nowhere", missing), ("no/where/at/all", missing)):
        assert run(line.format(path)) == 1
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith(f"error: No model at {path!r}: ")
        assert why in said


def test_a_directory_of_the_other_kind_is_named(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """A model where an adapter is asked for, and an adapter where a model is."""
    assert run("eval --task data.jsonl --adapter model --model model") == 1
    assert "it holds a whole model (config.json)" in capsys.readouterr().err
    Path("adapter").mkdir()
    Path("adapter", "adapter_config.json").write_text("{}")
    assert run("eval --task data.jsonl --model adapter") == 1
    assert "the directory holds an adapter" in capsys.readouterr().err


@pytest.mark.parametrize("path", ["/nonexist", "empty"])
def test_an_export_of_no_adapter_names_the_path(run: Run, capsys: pytest.CaptureFixture[str], path: str) -> None:
    """PEFT would look for its name on the hub."""
    Path("empty").mkdir()
    assert run(f"export lm-eval-steered --adapter {path}") == 1
    assert f"There is no adapter at {path}" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["train --task talk.jsonl", "eval --task talk.jsonl"])
def test_a_conversation_that_the_chat_template_refuses(run: Run, capsys: pytest.CaptureFixture[str], line: str) -> None:
    """The line of the file and the template's own words."""
    refusing_model()
    roles = [["user", "assistant"], ["system", "user", "assistant"]]
    lines = [{"messages": [{"role": role, "content": "a"} for role in each]} for each in roles]
    Path("talk.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    assert run(f"{line} --model ./refusing --chat --device cpu --dtype float32") == 1
    said = capsys.readouterr().err.splitlines()[-1]
    template = "the model's chat template"
    assert said == f"error: Example 'talk.jsonl:2' cannot be written in {template}: System role not supported."


def test_a_chat_goes_on_after_a_message_that_the_template_refuses(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every message is, where it takes no system message; /quit still ends it in good order."""
    refusing_model()
    lines = iter(["ab", "cd", "/quit"])
    monkeypatch.setattr("builtins.input", lambda *_: next(lines))
    assert run("chat --model ./refusing --form chat --system S --device cpu --dtype float32") == 0
    assert capsys.readouterr().out.count("System role not supported") == 2
    assert list(lines) == []


def refusing_model() -> None:
    """A model whose chat template takes no system message."""
    shutil.copytree("model", "refusing")
    Path("refusing/chat_template.jinja").write_text(
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}{{ m['role'] }}:{{ m['content'] }}\n{% endfor %}"
    )


def test_a_traceback_is_shown_on_request(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRIMTAB_TRACEBACK lets the error through."""
    monkeypatch.setenv("TRIMTAB_TRACEBACK", "1")
    with pytest.raises(ValueError, match="no such directory"):
        run("train --model ./nowhere --task data.jsonl")
