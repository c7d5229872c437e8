"""Every script in examples/ runs as a user would start it, here on a tiny model."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from tiny_directory import save_tiny_model
from tiny_language import tiny_model
from tiny_sums import adapter_weights
from trimtab.models import load_model

EXAMPLES = Path(__file__).parents[1] / "examples"
TRAINING = ["plain_loop", "trainer", "trl_sft", "trl_dpo", "trl_grpo"]


@pytest.fixture(scope="module")
def tiny_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and its tokenizer on disk."""
    return save_tiny_model(tmp_path_factory.mktemp("tiny"), chat=True)


def run(name: str, *arguments: object) -> None:
    """Run an example as the main program."""
    sys_argv = sys.argv
    sys.argv = [f"{name}.py", *map(str, arguments)]
    try:
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    finally:
        sys.argv = sys_argv


def continuation(directory: Path, prompt: str, tokens: int) -> str:
    """What the base model says greedily."""
    model, tokenizer = load_model(directory, device="cpu")
    encoded = tokenizer(prompt, return_tensors="pt")
    ids = model.generate(**encoded, max_new_tokens=tokens, do_sample=False)[0, encoded.input_ids.shape[1] :]
    return str(tokenizer.decode(ids, skip_special_tokens=True))


def test_every_example_is_run() -> None:
    """A script that is added to the folder must be added here."""
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*TRAINING, "strength_dial", "adapter_per_row"}


@pytest.mark.parametrize("name", TRAINING)
def test_a_training_example_saves_an_adapter(name: str, tiny_directory: Path, tmp_path: Path) -> None:
    """Three steps, and the folder holds an adapter that has moved and that loads into the base."""
    run(name, "--model", tiny_directory, "--steps", 3, "--output", tmp_path)

    written = {name for name, tensor in _adapter(tmp_path).items() if name.endswith("up") and tensor.any()}
    assert len(written) == 3  # W_up starts at zero in each layer


def _adapter(directory: Path) -> dict[str, torch.Tensor]:
    return adapter_weights(PeftModel.from_pretrained(tiny_model(), directory))


def test_the_trainer_example_goes_on_where_it_stopped(tiny_directory: Path, tmp_path: Path) -> None:
    """Stopped after a checkpoint and started again, it ends with the adapter of one run."""
    run("trainer", "--model", tiny_directory, "--steps", 24, "--output", tmp_path / "whole")
    run("trainer", "--model", tiny_directory, "--steps", 20, "--output", tmp_path / "parts")
    run("trainer", "--model", tiny_directory, "--steps", 24, "--output", tmp_path / "parts")

    whole, parts = _adapter(tmp_path / "whole"), _adapter(tmp_path / "parts")
    assert all(torch.equal(parts[name], tensor) for name, tensor in whole.items())


def test_the_dial_is_the_base_at_zero(tiny_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Strength 0 prints the base's own continuation, other strengths print others."""
    run("strength_dial", "--model", tiny_directory, "--prompt", "Hello", "--strengths", -4, 0, 4)

    printed = capsys.readouterr().out.splitlines()[-3:]
    texts = {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1] for line in printed}
    assert texts["+0.0"] == repr("Hello" + continuation(tiny_directory, "Hello", 20))
    assert len(set(texts.values())) == 3


def test_each_row_has_its_adapter(tiny_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The base's row says what the base says; each adapter says what it was trained to say."""
    run("adapter_per_row", "--model", tiny_directory, "--steps", 40)

    texts = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[-3:])
    question = "Question: Is it going to rain?\nAnswer:"
    assert texts["__base__"] == repr(continuation(tiny_directory, question, 12))
    assert len(set(texts.values())) == 3
