"""Runs that are trained together end as if each had been trained alone."""

from __future__ import annotations

import importlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from small_runs import SETTINGS, StopAfter, run, tensors
from tiny_language import LastLetter, tiny_model
from training.runs_together import METHODS, assert_same_run, files, together
from trimtab.methods import get_method
from trimtab.training import RunDirectory
from trimtab.training.gradient_start import point_at_gradient
from trimtab.training.parallel_trainer import ParallelTrainer

together_module = importlib.import_module("trimtab.training.together")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"epochs": 2, "accumulation": 2, "max_grad_norm": 0.05, "log_every": 2},
        {"gradient_checkpointing": True, "share_prefix": False, "max_grad_norm": 0},
    ],
)
def test_every_run_is_that_which_was_trained_alone(tmp_path: Path, changes: dict[str, Any]) -> None:
    """In float32 losses agree to 1e-5 of their size; 22 examples leave a batch of 6 at the end of an epoch."""
    settings, task = replace(SETTINGS, **changes), LastLetter(count=22)
    assert together(tmp_path, settings=settings, task=task) == [None] * len(METHODS)
    assert not (tmp_path / "group").exists()
    for index, (method, seed) in enumerate(METHODS):
        alone = run(tmp_path / "alone" / str(index), method, settings=replace(settings, seed=seed), task=task)
        assert_same_run(RunDirectory(tmp_path / str(index)), alone, tolerance=1e-5)


def test_prompts_that_begin_alike_are_shared_by_each_adapter(tmp_path: Path) -> None:
    """What is computed once is computed once an adapter: the numbers are those of the runs alone."""

    class Instructed(LastLetter):
        """The same words behind a long instruction."""

        def examples(self, split: Any, seed: int) -> Any:
            """With the instruction."""
            for example in super().examples(split, seed):
                yield replace(example, prompt=f"Answer with the last letter of the word that follows: {example.prompt}")

    chosen = [METHODS[0], METHODS[4], METHODS[7]]
    together(tmp_path, chosen, task=Instructed())
    for index, (method, seed) in enumerate(chosen):
        alone = run(tmp_path / "alone" / str(index), method, settings=replace(SETTINGS, seed=seed), task=Instructed())
        assert_same_run(RunDirectory(tmp_path / str(index)), alone, tolerance=1e-5)


def test_adapters_of_one_configuration_start_along_the_same_gradient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient is computed once for two of them, and again for those of another rank and other positions."""
    seen = []

    def counted(tuned: Any, dataset: Any, settings: Any, micro_batch: int, name: str) -> None:
        seen.append(name)
        point_at_gradient(tuned, dataset, settings, micro_batch, name)

    monkeypatch.setattr(together_module, "point_at_gradient", counted)
    plus = "post-block-plus"
    chosen = [
        (get_method(plus), 1),
        (get_method(plus, learning_rate=2e-2), 5),
        (get_method(plus, r=2), 1),
        (get_method(plus, positions="all"), 1),
    ]
    assert together(tmp_path, chosen) == [None] * len(chosen)
    assert seen == ["run0", "run2", "run3"]
    for index, (method, seed) in enumerate(chosen):
        alone = run(tmp_path / "alone" / str(index), method, settings=replace(SETTINGS, seed=seed))
        assert_same_run(RunDirectory(tmp_path / str(index)), alone, tolerance=1e-5)


def test_beside_a_bfloat16_base(tmp_path: Path) -> None:
    """Adapters stay in float32; losses agree to 2 %, as products of other shapes round differently."""
    together(tmp_path, model=tiny_model().to(torch.bfloat16))
    for index, (method, seed) in enumerate(METHODS):
        settings = replace(SETTINGS, seed=seed)
        alone = run(tmp_path / "alone" / str(index), method, tiny_model().to(torch.bfloat16), settings=settings)
        ours = RunDirectory(tmp_path / str(index))
        assert {value.dtype for value in tensors(ours).values()} == {torch.float32}
        assert [line["loss"] for line in ours.metrics()] == pytest.approx(
            [line["loss"] for line in alone.metrics()], rel=0.02
        )


def test_the_base_is_given_back(tmp_path: Path) -> None:
    """It answers bit for bit as before, and nothing of the adapters is left on it."""
    model = tiny_model()
    ids = torch.arange(12)[None]
    before, keys = model(input_ids=ids).logits, set(model.state_dict())
    together(tmp_path, model=model)
    assert torch.equal(model(input_ids=ids).logits, before)
    assert set(model.state_dict()) == keys
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("log_every", [1, 3])
def test_an_interrupted_pass_ends_with_the_same_bits(tmp_path: Path, log_every: int) -> None:
    """Stopped after 5 of 6 steps, with checkpoints at 2 and 4; two orders of the batches; lines of three steps too."""
    settings = replace(SETTINGS, epochs=2, log_every=log_every)
    together(tmp_path / "straight", settings=settings)
    with pytest.raises(KeyboardInterrupt):
        together(tmp_path / "broken", settings=settings, callbacks=[StopAfter(5)])
    together(tmp_path / "broken", settings=settings)
    for index in range(len(METHODS)):
        straight, resumed = RunDirectory(tmp_path / f"straight/{index}"), RunDirectory(tmp_path / f"broken/{index}")
        assert resumed.metrics() == straight.metrics()
        assert resumed.result().tokens == straight.result().tokens
        for name, value in tensors(straight).items():
            assert torch.equal(tensors(resumed)[name], value), name


def test_what_had_finished_when_a_pass_was_interrupted_is_not_touched(tmp_path: Path) -> None:
    """The first run is there already: it only rides along."""
    chosen = METHODS[:3]
    together(tmp_path / "straight", chosen)
    with pytest.raises(KeyboardInterrupt):
        together(tmp_path / "broken", chosen, callbacks=[StopAfter(3)])
    shutil.rmtree(tmp_path / "broken" / "0")
    shutil.copytree(tmp_path / "straight" / "0", tmp_path / "broken" / "0")
    before = files(tmp_path / "broken" / "0")
    together(tmp_path / "broken", chosen)
    assert files(tmp_path / "broken" / "0") == before
    for index in range(3):
        ours, theirs = RunDirectory(tmp_path / f"broken/{index}"), RunDirectory(tmp_path / f"straight/{index}")
        assert ours.metrics() == theirs.metrics()


DIVERGING = get_method("post-block", learning_rate=1e30)


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_run_that_diverges_leaves_the_others_alone(tmp_path: Path, interrupted: bool) -> None:
    """It has the error that it has alone, no result, and the losses before; the others are as without it."""
    settings = replace(SETTINGS, epochs=2, max_grad_norm=1e30)
    chosen = [METHODS[0], (DIVERGING, 1), METHODS[4]]
    with pytest.raises(FloatingPointError) as alone:
        run(tmp_path / "alone", DIVERGING, settings=settings)
    if interrupted:
        with pytest.raises(KeyboardInterrupt):
            together(tmp_path, chosen, settings=settings, callbacks=[StopAfter(5)])
    errors = together(tmp_path, chosen, settings=settings)
    assert [type(error) for error in errors] == [type(None), FloatingPointError, type(None)]
    assert str(errors[1]) == str(alone.value)
    assert not RunDirectory(tmp_path / "1").finished
    assert RunDirectory(tmp_path / "1").metrics() == RunDirectory(tmp_path / "alone").metrics()
    for index in (0, 2):
        method, seed = chosen[index]
        other = run(tmp_path / f"other{index}", method, settings=replace(settings, seed=seed))
        assert_same_run(RunDirectory(tmp_path / str(index)), other, tolerance=1e-5)


def test_when_all_diverge_all_errors_are_there(tmp_path: Path) -> None:
    """And the pass ends."""
    settings = replace(SETTINGS, epochs=2, max_grad_norm=1e30)
    errors = together(tmp_path, [(DIVERGING, 1), (replace(DIVERGING, learning_rate=1e29), 1)], settings=settings)
    assert [("1e+30" in str(error), "1e+29" in str(error)) for error in errors] == [(True, False), (False, True)]


def test_the_batch_is_as_large_as_the_runs_that_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step the model sees a group of 8 rows for each run: 3 at first, 2 when one has diverged."""
    rows: list[int] = []
    inner = ParallelTrainer.training_step

    def counted(self: Any, *args: Any) -> Any:
        def count(module: Any, inputs: Any, options: Any) -> None:
            rows.append(len(options["input_ids"]))

        handle = self._tuned.register_forward_pre_hook(count, with_kwargs=True)
        try:
            return inner(self, *args)
        finally:
            handle.remove()

    monkeypatch.setattr(ParallelTrainer, "training_step", counted)
    settings = replace(SETTINGS, max_steps=4, max_grad_norm=1e30, share_prefix=False)
    together(tmp_path, [METHODS[0], (DIVERGING, 1), METHODS[4]], settings=settings)
    assert rows[0] == 24
    assert rows[-1] == 16
