"""Runs that are trained together end as if each had been trained alone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from small_runs import SETTINGS, StopAfter, run, tensors
from tiny_language import LastLetter, byte_tokenizer, tiny_model
from trimtab.methods import Method, get_method
from trimtab.training import Job, RunDirectory, TrainingSettings, train_together
from trimtab.training.parallel_trainer import ParallelTrainer

METHODS: list[tuple[Method, int]] = [
    (get_method("post-block"), 1),
    (get_method("post-block", learning_rate=2e-2, weight_decay=0.1), 1),
    (get_method("post-block-plus", warmup_ratio=0.4, rate_factors={"down": 2.0, "bias": 4.0}), 1),
    (get_method("1-vec"), 1),
    (get_method("reft"), 1),
    (get_method("lofit-all-heads"), 1),
    (get_method("pre-mlp-nonlinear", layers=[0, 2]), 1),
    (get_method("post-block"), 5),
]
"""Rates, schedules, sites, positions, starts and (the last one) another order of the batches."""
OF_A_CLOCK = {"seconds", "peak_memory", "environment"}


def jobs(out: Path, chosen: list[tuple[Method, int]] | None = None, settings: TrainingSettings = SETTINGS) -> list[Job]:
    """A job for each (method, seed), in numbered directories."""
    chosen = METHODS if chosen is None else chosen
    return [Job(method, replace(settings, seed=seed), out / str(i)) for i, (method, seed) in enumerate(chosen)]


def together(
    out: Path, *args: Any, model: PreTrainedModel | None = None, task: Any = None, **options: Any
) -> list[FloatingPointError | None]:
    """Train the jobs together on the tiny model and the small task."""
    callbacks = options.pop("callbacks", [])
    return train_together(
        tiny_model() if model is None else model,
        jobs(out, *args, **options),
        task or LastLetter(),
        out / "group",
        tokenizer=byte_tokenizer(),
        progress=False,
        callbacks=callbacks,
    )


def files(directory: Path) -> dict[str, bytes]:
    """Every file below a directory."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def assert_same_run(one: RunDirectory, alone: RunDirectory, tolerance: float) -> None:
    """Losses, norms and weights to a tolerance, and all else equal."""
    assert one.recipe() == alone.recipe()
    assert files(one.path).keys() == files(alone.path).keys()
    for name in ("adapter_config.json", "README.md"):
        assert (one.weights / name).read_text() == (alone.weights / name).read_text(), name
    for line, other in zip(one.metrics(), alone.metrics(), strict=True):
        assert list(line) == list(other)
        assert line["loss"] == pytest.approx(other["loss"], rel=tolerance)
        assert line["grad_norm"] == pytest.approx(other["grad_norm"], rel=20 * tolerance)
        rest = ("step", "learning_rate", "epoch", "tokens")
        assert [line[key] for key in rest] == [other[key] for key in rest]
    for name, value in tensors(alone).items():
        torch.testing.assert_close(tensors(one)[name], value, rtol=100 * tolerance, atol=10 * tolerance, msg=name)
    ours, theirs = one.result().to_dict(), alone.result().to_dict()
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=tolerance)
    same = ours.keys() - OF_A_CLOCK - {"loss"}
    assert {key: ours[key] for key in same} == {key: theirs[key] for key in same}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"epochs": 2, "accumulation": 2, "max_grad_norm": 0.05, "log_every": 2},
        {"gradient_checkpointing": True, "share_prefix": False},
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


def test_an_interrupted_pass_ends_with_the_same_bits(tmp_path: Path) -> None:
    """Stopped after 5 of 6 steps, with checkpoints at 2 and 4; two orders of the batches."""
    settings = replace(SETTINGS, epochs=2)
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


def start(out: Path, chosen: list[Job], model: PreTrainedModel | None = None) -> None:
    """Train these jobs together."""
    train_together(
        model or tiny_model(), chosen, LastLetter(), out / "group", tokenizer=byte_tokenizer(), progress=False
    )


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("lora", "only steering adapters"),
        ("joint", "only steering adapters"),
        ("sft", "only steering adapters"),
        ("lofit", "selects heads"),
        ("jola", "random numbers"),
        (get_method("lofit-all-heads", intervention="head_scale"), "penalty"),
    ],
)
def test_methods_that_cannot_be_trained_together_are_refused(tmp_path: Path, method: Any, reason: str) -> None:
    """By name and with the reason, before anything is written."""
    chosen = get_method(method) if isinstance(method, str) else method
    with pytest.raises(ValueError, match=f"{chosen.name}.* cannot be trained together with others: .*{reason}"):
        together(tmp_path, [METHODS[0], (chosen, 1)])
    assert files(tmp_path) == {}


def test_what_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    """Settings other than the seed, one directory for two runs, no run, a base with dropout, a finished run."""
    first, second = jobs(tmp_path, METHODS[:2])
    with pytest.raises(ValueError, match=r"differ in the seed only, not in batch_size \(8 and 4\)"):
        start(tmp_path, [first, replace(second, settings=replace(second.settings, batch_size=4))])
    with pytest.raises(ValueError, match="Two runs have the directory"):
        start(tmp_path, [first, replace(second, out_dir=first.out_dir)])
    with pytest.raises(ValueError, match="no runs"):
        start(tmp_path, [])
    with pytest.raises(ValueError, match="dropout"):
        start(tmp_path, [first, second], tiny_model(attention_dropout=0.1))
    assert files(tmp_path) == {}
    run(first.out_dir, first.method)
    before = files(tmp_path)
    with pytest.raises(FileExistsError, match="finished"):
        start(tmp_path, [first, second])
    assert files(tmp_path) == before


def test_an_adapter_that_does_not_fit_costs_nothing(tmp_path: Path) -> None:
    """No directory is made, and the base is as before."""
    model = tiny_model()
    keys = set(model.state_dict())
    with pytest.raises(ValueError, match="99"):
        together(tmp_path, [METHODS[0], (get_method("post-block", layers=[99]), 1)], model=model)
    assert files(tmp_path) == {}
    assert set(model.state_dict()) == keys


def test_another_groups_directory_is_left_alone(tmp_path: Path) -> None:
    """The directory of an interrupted pass is not taken for that of other runs."""
    with pytest.raises(KeyboardInterrupt):
        together(tmp_path, METHODS[:2], callbacks=[StopAfter(3)])
    before = files(tmp_path / "group")
    with pytest.raises(FileExistsError, match=r"runs\.0\.method\.learning_rate \(0\.002 there, 0\.02 here\)"):
        start(tmp_path, jobs(tmp_path / "other", METHODS[1:3]))
    assert files(tmp_path / "group") == before
    assert not (tmp_path / "other").exists()
