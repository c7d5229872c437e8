"""The verb `analyze`: the page, the numbers, and what is refused before anything is loaded."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cli.commands import TRAIN, Run
from tiny_language import byte_tokenizer, tiny_model

PROMPTS = "--task listops-small --prompts 16"
SMALL = "--device cpu --max_texts 1 --directions 4 --ranks [1,3]"


@pytest.fixture(autouse=True)
def _verb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def numbers(directory: str) -> dict[str, object]:
    """The JSON beside a page."""
    return json.loads(Path(directory, "analysis.json").read_text())


def test_a_base(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """One self-contained page with the figures that need no training; the others with the reason; numbers as JSON."""
    assert run(f"analyze model {PROMPTS} {SMALL} --out page") == 0
    said = capsys.readouterr().out
    assert "The MLP's share is" in said
    assert "oracle, left out: It compares a trained model with its base" in said
    page = Path("page/index.html").read_text()
    assert page.count("<svg") >= 2
    assert "What was left out" in page
    assert not re.search(r"(src|href)=\"(?!#)", page)  # nothing is fetched
    content = numbers("page")
    assert content["settings"]["dtype"] == "float32"  # type: ignore[index]
    share = content["findings"]["mlp_share"]["numbers"]["mlp"]  # type: ignore[index]
    assert [len(share), len(share[0])] == [3, 16]
    assert Path("page/figures/mlp_share.svg").read_text().startswith("<?xml")
    assert run(f"analyze model {PROMPTS} {SMALL} --out page") == 1  # there is a page
    assert "--overwrite" in capsys.readouterr().err
    assert run(f"analyze model {PROMPTS} {SMALL} --out page --overwrite --only mlp_share") == 0
    assert list(numbers("page")["findings"]) == ["mlp_share"]  # type: ignore[call-overload]


def test_an_adapter_and_its_dial(run: Run) -> None:
    """The second word is a run directory, whose page lies in it; at half the strength the shift is half as large."""
    assert run(f"{TRAIN} --learning_rate 0.5 --layers [2] --out run") == 0
    assert run(f"analyze model run {PROMPTS} {SMALL} --only [oracle,mlp_share]") == 0
    assert run(f"analyze model run {PROMPTS} {SMALL} --only oracle --strength 0.5 --out half") == 0
    sizes = [numbers(name)["findings"]["oracle"]["numbers"]["size"][0][2] for name in ("run/analysis", "half")]  # type: ignore[index]
    assert sizes[1] == pytest.approx(sizes[0] / 2, rel=1e-3)
    assert sizes[0] > 0
    assert run(f"analyze --adapter {Path('run').absolute()} {PROMPTS} {SMALL} --only oracle --out own") == 0
    assert numbers("own")["settings"]["adapter"] == "run"  # type: ignore[index]
    assert str(Path.cwd()) not in Path("own/index.html").read_text()
    assert "<title>What the paper measures, on model and run</title>" in Path("own/index.html").read_text()


def test_a_model_fine_tuned_in_full(run: Run) -> None:
    """By --tuned with its base, or as the run directory of full fine-tuning, which knows its base and task."""
    assert run(f"{TRAIN} --method sft --learning_rate 0.01 --out full") == 0
    assert run(f"analyze model --tuned full/weights {PROMPTS} {SMALL} --only oracle --out one") == 0
    assert run(f"analyze --adapter full {PROMPTS} {SMALL} --only oracle --out two") == 0
    assert numbers("one")["findings"] == numbers("two")["findings"]


def test_prompts_of_a_file(run: Run) -> None:
    """One a line."""
    Path("lines.txt").write_text("Who sleeps in the harbour?\nThe red boat.\n")
    assert run(f"analyze model --prompt_file lines.txt {SMALL} --only mlp_share") == 0
    assert numbers("runs/lines/analysis")["settings"]["prompts"] == 2  # type: ignore[index]


@pytest.mark.parametrize(
    ("line", "message", "code"),
    [
        (f"nothing {PROMPTS} --only mlp_shar", "Did you mean 'mlp_share'?", 2),
        (f"nothing {PROMPTS} --split tset", "Did you mean 'test'?", 2),
        ("nothing --task listops-smal", "Did you mean 'listops-small'?", 2),
        ("nothing", "Give --task or --prompt_file", 2),
        (f"nothing {PROMPTS} --prompt_file lines.txt", "one of them", 2),
        (f"nothing {PROMPTS} --ranks [0]", "ranks=", 2),
        (f"--tuned elsewhere {PROMPTS}", "Give --model", 2),
        ("nothing --prompt_file lines.txt", "lines.txt", 1),
        (f"model {PROMPTS} {SMALL} --only oracle", "oracle cannot be measured here", 1),
        (f"model {PROMPTS} {SMALL} --layers [7]", "Layer 7 is not there", 1),
    ],
)
def test_mistakes_are_named(run: Run, capsys: pytest.CaptureFixture[str], line: str, message: str, code: int) -> None:
    """A sentence, no traceback, no page."""
    assert run(f"analyze {line} --out page") == code
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not Path("page").exists()


def test_a_tuned_model_with_another_tokenizer_is_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Its tokens would be others."""
    tiny_model(max_position_embeddings=1024).save_pretrained("other")
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["surplus"])
    tokenizer.save_pretrained("other")
    assert run(f"analyze model --tuned other {PROMPTS} {SMALL} --out page") == 1
    assert "surplus" in capsys.readouterr().err
