"""A whole sweep in this process: numbers, order, resuming, failures, and what is kept."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest

from sweeps.small_sweep import TRAINING, Ran, numbers, quietly, small_recipe
from trimtab.evaluation import evaluate
from trimtab.methods import get_method
from trimtab.sweeps import SweepDirectory, UnfinishedSweepError, load_failures, load_results, run_one, worker
from trimtab.tasks import get_task
from trimtab.training import TrainingSettings, load_run, train


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException | None], None]:
    """Let the run at rate 0.002 and seed 0 raise an error, or (None) no more."""

    def set_error(error: BaseException | None) -> None:
        def maybe(run: Any, *others: Any) -> Any:
            if error is not None and (run.learning_rate, run.seed) == (0.002, 0):
                raise error
            return run_one(run, *others)

        monkeypatch.setattr(worker, "run_one", maybe)

    return set_error


@pytest.fixture(scope="module")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small sweep, run once."""
    out = tmp_path_factory.mktemp("finished") / "out"
    quietly(small_recipe(folder), out)
    return out


def test_a_record_holds_what_training_and_scoring_by_hand_give(folder: Path, finished: Path, tmp_path: Path) -> None:
    """Accuracy, loss and counts are those of `train`, `load_run` and `evaluate`."""
    recipe = small_recipe(folder)
    entry: Any = recipe.tasks[0]
    task = get_task(entry["name"], **entry["options"])
    method = get_method("post-block", r=1, learning_rate=0.05)
    run = train(recipe.models[0], method, task, tmp_path / "run", settings=TrainingSettings(**TRAINING), progress=False)
    model, tokenizer = load_run(run.path, dtype="float32")
    scored = evaluate(model, tokenizer, task, split="validation", progress=False)
    (record,) = [
        each
        for each in load_results(finished)
        if (each.method, each.learning_rate, each.seed, each.split) == ("rank 1", 0.05, 0, "validation")
    ]
    assert (record.correct, record.n) == (scored.accuracy.correct, scored.accuracy.n)
    assert record.standard_error == scored.accuracy.standard_error
    assert record.loss == run.result().loss
    assert [loss for _, loss in record.loss_curve] == [line["loss"] for line in run.metrics()]
    assert record.trainable_parameters == 2 * 32 * 3
    assert record.model_parameters == model.get_base_model().num_parameters() - record.trainable_parameters
    answers = [json.loads(line) for line in (finished / record.examples_file).read_text().splitlines()]
    assert sum(answer["correct"] for answer in answers) == record.correct
    assert record.environment.versions["torch"]


def test_every_trial_comes_before_a_final_and_no_training_is_done_twice(
    folder: Path, tmp_path: Path, ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two trials, then the seeds of the better rate on test; the trial's training serves its seed."""
    trained: list[Any] = []
    monkeypatch.setattr(
        "trimtab.sweeps.run.train", lambda *args, **given: (trained.append(args[3]), train(*args, **given))
    )
    quietly(small_recipe(folder, methods=["post-block"]), tmp_path / "out")
    assert [(rate, seed, split) for _, rate, seed, split in ran[:2]] == [
        (0.05, 0, "validation"),
        (0.002, 0, "validation"),
    ]
    records = {(each.learning_rate, each.split): each for each in load_results(tmp_path / "out") if each.seed == 0}
    best = max((0.002, 0.05), key=lambda rate: (records[rate, "validation"].accuracy, -rate))
    assert [(rate, seed, split) for _, rate, seed, split in ran[2:]] == [(best, 0, "test"), (best, 1, "test")]
    assert len(trained) == len(set(trained)) == 3


def test_a_finished_sweep_does_nothing_again(folder: Path, finished: Path, ran: Ran) -> None:
    """The same results, and no run."""
    before = (finished / "results.jsonl").read_text()
    printed = quietly(small_recipe(folder), finished)
    assert ran == []
    assert (finished / "results.jsonl").read_text() == before
    assert "8 of 8 runs done, 0 failed" in printed


def test_a_larger_recipe_in_the_directory_runs_only_what_is_new(folder: Path, finished: Path, ran: Ran) -> None:
    """Another seed: one more final a method."""
    quietly(small_recipe(folder, seeds=[0, 1, 2]), finished)
    assert [(seed, split) for _, _, seed, split in ran] == [(2, "test"), (2, "test")]


def test_results_are_read_by_pandas_in_one_line_and_can_be_made_again(finished: Path) -> None:
    """Flat columns; results.jsonl is only a copy of the runs' own records."""
    page = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"`(pandas\.read_json\(\"runs/smol-listops/results\.jsonl\".*?\))`", page)
    line = line.replace("runs/smol-listops", finished.as_posix())
    table = eval(line, {"pandas": pandas})  # noqa: S307 - the page is ours
    lines = [json.loads(each) for each in (finished / "results.jsonl").read_text().split("\n") if each]
    for column in ("right", "run", "learning_rate", "standard_error", "loss", "loss_curve", "n", "seed", "method"):
        assert list(table[column]) == [each[column] for each in lines], column
    assert set(table.right.map(type)) == {str}
    assert (table.accuracy == table.correct / table.n).all()
    before = numbers(load_results(finished))
    (finished / "results.jsonl").unlink()
    SweepDirectory(finished).assemble()
    assert numbers(load_results(finished)) == before


def test_separators_of_lines_in_texts_end_no_line(
    tmp_path: Path, failing: Callable[[BaseException | None], None]
) -> None:
    """U+2028, U+2029 and U+0085 in prompts, labels and errors: JSON leaves them as they are."""
    recipe, odd = small_recipe(tmp_path, methods=["post-block"]), "\u2028\u2029\x85"
    for split in ("train", "validation", "test"):
        rows = [{"prompt": f"{split[:2]}{odd}{i}\n", "completion": f"{odd[i % 3]}a"} for i in range(6)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    failing(RuntimeError(f"said{odd}twice"))
    with pytest.raises(UnfinishedSweepError):
        quietly(recipe, out)
    assert [failure.message for failure in load_failures(out)] == [f"said{odd}twice"]
    failing(None)
    quietly(recipe, out, retry_failed=True)
    for record in load_results(out):
        text = (out / record.examples_file).read_text(encoding="utf-8")
        assert odd in text
        answers = [json.loads(line) for line in text.split("\n")[:-1]]
        assert record.right == "".join("1" if answer["correct"] else "0" for answer in answers)
        assert len(answers) == record.n == 6


def test_a_file_that_was_cut_off_is_no_result(folder: Path, tmp_path: Path, ran: Ran) -> None:
    """What a killed process leaves has another name, and the run is run."""
    quietly(small_recipe(folder, methods=["post-block"], seeds=[0]), tmp_path / "out")
    (record,) = [path for path in (tmp_path / "out/runs").glob("*/test-*.json")]
    whole = json.loads(record.read_text())
    record.with_name(f".{record.name}.123").write_text(record.read_text()[:40])
    record.unlink()
    ran.clear()
    quietly(small_recipe(folder, methods=["post-block"], seeds=[0]), tmp_path / "out")
    assert [split for *_, split in ran] == ["test"]
    assert json.loads(record.read_text())["correct"] == whole["correct"]


def test_a_failed_run_is_recorded_and_retried_only_when_asked(
    folder: Path, tmp_path: Path, failing: Callable[[BaseException | None], None]
) -> None:
    """Type, message and traceback; the others are run; then the same results as without the failure."""
    recipe, out = small_recipe(folder, methods=["post-block"]), tmp_path / "out"
    failing(RuntimeError("the cable came off"))
    with pytest.raises(UnfinishedSweepError, match="the cable came off"):
        quietly(recipe, out)
    (failure,) = load_failures(out)
    assert (failure.error, failure.message, failure.split) == ("RuntimeError", "the cable came off", "validation")
    assert "Traceback" in (out / failure.traceback_file).read_text()
    assert [each.split for each in load_results(out)] == ["validation"]  # without a choice, nothing on test
    failing(None)
    with pytest.raises(UnfinishedSweepError, match="retry_failed"):
        quietly(recipe, out)
    assert len(load_failures(out)) == 1
    quietly(recipe, out, retry_failed=True)
    assert load_failures(out) == []
    quietly(recipe, tmp_path / "undisturbed")
    assert numbers(load_results(out)) == numbers(load_results(tmp_path / "undisturbed"))


def test_a_rate_that_diverges_is_left_out_of_the_choice(folder: Path, tmp_path: Path) -> None:
    """The sweep ends well with the other rate; the divergence is on record."""
    training = {**TRAINING, "max_grad_norm": 1e30}
    recipe = small_recipe(folder, methods=["post-block"], learning_rates=[1e30, 0.002], seeds=[0], training=training)
    quietly(recipe, tmp_path / "out")
    assert [failure.error for failure in load_failures(tmp_path / "out")] == ["FloatingPointError"]
    assert [each.learning_rate for each in load_results(tmp_path / "out") if each.split == "test"] == [0.002]


def test_what_diverged_is_not_tried_again(folder: Path, tmp_path: Path, ran: Ran) -> None:
    """Not with --retry_failed either: it is a result. What can be done is said where no rate is left."""
    training = {**TRAINING, "max_grad_norm": 1e30}
    recipe = small_recipe(folder, methods=["post-block"], learning_rates=[1e30], seeds=[0], training=training)
    with pytest.raises(UnfinishedSweepError, match="other rates are needed"):
        quietly(recipe, tmp_path / "out")
    before = load_failures(tmp_path / "out")
    ran.clear()
    with pytest.raises(UnfinishedSweepError, match="other rates are needed"):
        quietly(recipe, tmp_path / "out", retry_failed=True)
    assert ran == []
    assert load_failures(tmp_path / "out") == before != []


def test_an_interrupted_sweep_goes_on(
    folder: Path, finished: Path, tmp_path: Path, failing: Callable[[BaseException | None], None]
) -> None:
    """Ctrl-C is no failure; started again the sweep ends with the same numbers."""
    failing(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        quietly(small_recipe(folder), tmp_path / "out")
    failing(None)
    quietly(small_recipe(folder), tmp_path / "out")
    expected = numbers([each for each in load_results(finished) if each.seed < 2])
    assert numbers(load_results(tmp_path / "out")) == expected


@pytest.mark.parametrize(("keep", "adapters", "models"), [("adapters", 2, 0), ("nothing", 0, 0), ("all", 2, 2)])
def test_weights_are_kept_as_the_recipe_says(
    folder: Path, tmp_path: Path, keep: str, adapters: int, models: int
) -> None:
    """Adapters unless told otherwise, whole models only when told so; losses and settings stay."""
    recipe = small_recipe(folder, methods=["post-block", "sft"], learning_rates=[0.01, 0.001], seeds=[0], keep=keep)
    quietly(recipe, tmp_path / "out")
    records = load_results(tmp_path / "out")
    assert len(records) == 6
    homes = {each.training: each.family for each in records}
    kept = [family for home, family in homes.items() if (tmp_path / "out/runs" / home / "training/weights").is_dir()]
    assert (kept.count("steering"), kept.count("full")) == (adapters, models)
    assert all((tmp_path / "out/runs" / home / "training/metrics.jsonl").is_file() for home in homes)


def test_full_fine_tuning_leaves_the_base_as_it_was(folder: Path, finished: Path, tmp_path: Path) -> None:
    """What is trained behind it in one process starts from the same weights."""
    quietly(small_recipe(folder, methods=["sft", "post-block"], seeds=[0], keep="nothing"), tmp_path / "out")
    after = {key: value for key, value in numbers(load_results(tmp_path / "out")).items() if value["method"] != "sft"}
    assert after
    alone = numbers(load_results(finished))
    assert {key: alone[key] for key in after} == after


def test_a_sweep_that_was_killed_at_its_very_start_goes_on(folder: Path, tmp_path: Path) -> None:
    """All that is there is the marker, under the temporary name that it is written under."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".sweep.json.123").write_text('{"recipe"')
    quietly(small_recipe(folder, methods=["post-block"], seeds=[0]), tmp_path / "out")
    assert len(load_results(tmp_path / "out")) == 3
