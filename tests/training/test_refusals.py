"""What a training run refuses, and that nothing is lost by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file

from small_runs import run, tensors
from tiny_language import LastLetter, byte_tokenizer, tiny_model
from trimtab import SteeringConfig
from trimtab.methods import get_method
from trimtab.training import RunDirectory, TrainingSettings, load_run, train


def test_another_recipe_in_the_directory_is_refused(tmp_path: Path) -> None:
    """The error names the setting that differs; with overwrite the new run takes its place."""
    run(tmp_path / "run")
    other = get_method("post-block", learning_rate=0.5e-3)
    with pytest.raises(FileExistsError, match=r"method.learning_rate \(0.002 there, 0.0005 here\)"):
        run(tmp_path / "run", other)
    assert run(tmp_path / "run", other, overwrite=True).recipe()["method"]["learning_rate"] == 0.5e-3


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    """The same recipe in the directory of its finished run is an error unless it may overwrite."""
    first = run(tmp_path / "run")
    with pytest.raises(FileExistsError, match="finished"):
        run(tmp_path / "run")
    before = tensors(first)
    again = tensors(run(tmp_path / "run", overwrite=True))
    assert all(torch.equal(again[name], value) for name, value in before.items())


def test_a_directory_of_something_else_is_never_touched(tmp_path: Path) -> None:
    """Not even with overwrite."""
    (tmp_path / "thesis.txt").write_text("four years of work")
    with pytest.raises(FileExistsError, match="something else"):
        run(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "four years of work"


def test_a_bad_example_does_not_cost_the_run_that_is_there(tmp_path: Path) -> None:
    """Overwriting begins when the new run is known to fit."""
    before = tensors(run(tmp_path / "run"))
    with pytest.raises(ValueError, match="context of 10"):
        run(tmp_path / "run", model=tiny_model(max_position_embeddings=10), overwrite=True)
    assert tensors(RunDirectory(tmp_path / "run")).keys() == before.keys()


def test_a_directory_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    """The name of the model is not even looked up."""
    (tmp_path / "thesis.txt").write_text("four years of work")
    with pytest.raises(FileExistsError, match="something else"):
        run(tmp_path, model="./no-such-model")  # type: ignore[arg-type]


def test_a_diverging_run_stops_with_step_and_rate(tmp_path: Path) -> None:
    """A loss that is not finite ends the run before anything is saved."""
    settings = TrainingSettings(max_grad_norm=1e30, epochs=10)
    with pytest.raises(FloatingPointError, match=r"step [2-9]\d* with learning rate 1e\+30"):
        run(tmp_path / "run", get_method("post-block", learning_rate=1e30), settings=settings)
    assert not RunDirectory(tmp_path / "run").finished


def test_weights_that_diverge_at_the_last_step_are_not_saved(tmp_path: Path) -> None:
    """One step with an infinite rate: the loss was finite, the weights are not."""
    with pytest.raises(FloatingPointError, match="not finite after the last step"):
        run(
            tmp_path / "run",
            get_method("post-block", learning_rate=float("inf")),
            settings=TrainingSettings(max_steps=1),
        )


def test_an_example_longer_than_the_context_is_refused(tmp_path: Path) -> None:
    """Before training, with its name and both lengths."""
    with pytest.raises(ValueError, match=r"'train:\d+' has \d+ tokens, more than the model's context of 10"):
        run(tmp_path / "run", model=tiny_model(max_position_embeddings=10))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["post-block", "lora", "sft"])
def test_pickled_weights_are_refused(tmp_path: Path, method: str) -> None:
    """A run whose weights somebody replaced by a pickle is not loaded."""
    tiny_model().save_pretrained(tmp_path / "base")
    byte_tokenizer().save_pretrained(tmp_path / "base")
    settings = TrainingSettings(max_steps=1, dtype="float32")
    finished = train(tmp_path / "base", method, LastLetter(), tmp_path / "run", settings=settings, progress=False)
    (weights,) = finished.weights.glob("*.safetensors")
    name = "pytorch_model.bin" if method == "sft" else "adapter_model.bin"
    torch.save(load_file(weights), finished.weights / name)
    weights.unlink()
    with pytest.raises(ValueError, match="safetensors"):
        load_run(finished.path)


def test_a_model_with_an_adapter_is_refused(tmp_path: Path) -> None:
    """Training on top of an adapter would save only half of it."""
    with pytest.raises(ValueError, match="already carries an adapter"):
        run(tmp_path / "run", model=get_peft_model(tiny_model(), SteeringConfig(r=2)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 must be positive"),
        ({"max_steps": 0}, "max_steps=0 must be at least 1"),
        ({"epochs": -1}, "epochs=-1 must be positive"),
        ({"max_grad_norm": -1}, "max_grad_norm=-1 must be positive, or 0"),
        ({"max_grad_norm": float("nan")}, "max_grad_norm=nan must be positive, or 0"),
    ],
)
def test_settings_refuse_what_cannot_be_done(options: dict[str, Any], message: str) -> None:
    """Each with its name."""
    with pytest.raises(ValueError, match=message):
        TrainingSettings(**options)


def test_batches_that_do_not_split_are_refused(tmp_path: Path) -> None:
    """Eight examples in three micro-batches."""
    with pytest.raises(ValueError, match="batch_size=8 does not split into accumulation=3"):
        run(tmp_path / "run", settings=TrainingSettings(accumulation=3))
