"""Parameters with learning rates of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from small_runs import SETTINGS, StopAfter, run, tensors
from tiny_language import LastLetter, byte_tokenizer, tiny_model
from trimtab.cli.recipes import flatten
from trimtab.methods import get_method
from trimtab.training import Job, train_together

FACTORS = {"down": 2.0, "bias": 4.0}
METHOD = get_method("post-block-normalized", warmup_ratio=0.0, rate_factors=FACTORS)


def moved(out: Path, steps: int = 1, **changes: object) -> dict[str, torch.Tensor]:
    """How far every tensor of the adapter is after a few steps from where it is after (almost) none."""
    method = replace(METHOD, **changes)  # type: ignore[arg-type]
    start = tensors(run(out / "start", replace(method, learning_rate=1e-30), settings=replace(SETTINGS, max_steps=1)))
    end = tensors(run(out / "end", method, settings=replace(SETTINGS, max_steps=steps)))
    return {name: end[name] - start[name] for name in end}


def test_the_first_step_is_the_factor_times_as_long(tmp_path: Path) -> None:
    """AdamW's first step is the rate times a direction that does not depend on the rate."""
    own = {"schedule": "constant", "adapter": {**METHOD.adapter, "init_weights": "random_up"}}
    plain = moved(tmp_path / "plain", rate_factors={}, **own)
    scaled = moved(tmp_path / "scaled", rate_factors={"down": 3.0, "bias": 0.5}, **own)
    expected = {"down": 3.0, "bias": 0.5, "up": 1.0}
    for name, step in plain.items():
        assert name.endswith("up") or step.abs().max() > 0
        torch.testing.assert_close(scaled[name], expected[name.rpartition(".")[2]] * step, rtol=1e-4, atol=1e-8)


def test_a_factor_is_for_every_layer_and_kind_that_has_the_name(tmp_path: Path) -> None:
    """Twice the rate for all parts together is twice the learning rate; what is logged is the rate without a factor."""
    settings = replace(SETTINGS, max_steps=3)
    lora = get_method("lora", learning_rate=1e-3, warmup_ratio=0.0, weight_decay=0.1)
    factored = run(tmp_path / "factors", replace(lora, rate_factors={"lora_A": 2.0, "lora_B": 2.0}), settings=settings)
    doubled = run(tmp_path / "doubled", replace(lora, learning_rate=2e-3), settings=settings)
    for name, value in tensors(doubled).items():
        torch.testing.assert_close(tensors(factored)[name], value)
    rates = [line["learning_rate"] for line in factored.metrics()]
    assert rates == pytest.approx([line["learning_rate"] / 2 for line in doubled.metrics()])
    assert [line["loss"] for line in factored.metrics()] == pytest.approx([x["loss"] for x in doubled.metrics()])


def test_an_interrupted_run_goes_on_with_its_factors(tmp_path: Path) -> None:
    """Bit for bit."""
    whole = run(tmp_path / "whole", METHOD)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", METHOD, callbacks=[StopAfter(3)])
    resumed = run(tmp_path / "cut", METHOD)
    assert all(torch.equal(tensors(resumed)[name], value) for name, value in tensors(whole).items())
    assert resumed.metrics() == whole.metrics()


def test_a_recipe_keeps_them(tmp_path: Path) -> None:
    """What a run leaves repeats it on the command line; a method without factors has none in its recipe."""
    recipe = run(tmp_path / "run", METHOD, settings=replace(SETTINGS, max_steps=1)).recipe()
    assert flatten(recipe)["rate_factors"] == FACTORS
    assert "rate_factors" not in get_method("lora").to_dict()


def test_an_option_that_leaves_a_parameter_out_leaves_its_factor_without_effect(tmp_path: Path) -> None:
    """Without the bias the method trains as if the bias had no factor."""
    settings = replace(SETTINGS, max_steps=2)
    with_factor = run(tmp_path / "with", get_method("post-block-plus", use_bias=False), settings=settings)
    only = get_method("post-block-plus", use_bias=False, rate_factors={"down": 3.0})
    without = run(tmp_path / "without", only, settings=settings)
    assert all(torch.equal(tensors(without)[name], value) for name, value in tensors(with_factor).items())


def test_an_unknown_parameter_is_named_before_anything_is_written(tmp_path: Path) -> None:
    """With the nearest name, alone and together."""
    method = get_method("post-block", rate_factors={"dwn": 2.0})
    jobs, task = [Job(method, SETTINGS, tmp_path / "run")], LastLetter()
    with pytest.raises(ValueError, match=r"parameter in rate_factors 'dwn'. Did you mean 'down'"):
        run(tmp_path / "run", method)
    with pytest.raises(ValueError, match=r"parameter in rate_factors 'dwn'. Did you mean 'down'"):
        train_together(tiny_model(), jobs, task, tmp_path / "group", tokenizer=byte_tokenizer())
    assert not list(tmp_path.iterdir())
