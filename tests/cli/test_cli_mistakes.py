"""What the command line says when something is wrong."""

from __future__ import annotations

import json
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


def test_a_traceback_is_shown_on_request(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRIMTAB_TRACEBACK lets the error through."""
    monkeypatch.setenv("TRIMTAB_TRACEBACK", "1")
    with pytest.raises(ValueError, match="no such directory"):
        run("train --model ./nowhere --task data.jsonl")
