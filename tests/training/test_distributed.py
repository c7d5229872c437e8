"""Two processes on one machine train what one process trains."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_worker import COUNTS, SETTINGS

from tiny_language import LastLetter, byte_tokenizer, tiny_model
from trimtab.training import RunDirectory, train
from two_processes import run_in_two_processes


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[int, RunDirectory]:
    """The runs of two processes, by the number of examples."""
    worker = Path(__file__).with_name("training_worker.py")
    folder = run_in_two_processes(worker, tmp_path_factory.mktemp("two"))
    runs = {count: RunDirectory(folder / str(count)) for count in COUNTS}
    if not all(run.finished for run in runs.values()):
        pytest.fail((folder / "log.txt").read_text(encoding="utf-8")[-5000:])
    return runs


@pytest.mark.slow
def test_an_epochs_rest_is_left_out_on_two_processes(tmp_path: Path, two: dict[int, RunDirectory]) -> None:
    """21 examples are two batches of eight an epoch: none counts twice, and no process waits for another."""
    one = train(
        tiny_model(),
        "post-block",
        LastLetter(count=21),
        tmp_path / "one",
        tokenizer=byte_tokenizer(),
        settings=SETTINGS,
        progress=False,
    )
    losses = [line["loss"] for line in two[21].metrics()]
    assert len(losses) == two[21].result().steps == 4
    assert losses[:2] == pytest.approx([line["loss"] for line in one.metrics()][:2], rel=1e-4)


@pytest.mark.slow
def test_two_processes_train_the_adapter_of_one(tmp_path: Path, two: dict[int, RunDirectory]) -> None:
    """Same global batches, so the same adapter but for the order of float32 sums (1e-4 after six steps)."""
    one = train(
        tiny_model(),
        "post-block",
        LastLetter(),
        tmp_path / "one",
        tokenizer=byte_tokenizer(),
        settings=SETTINGS,
        progress=False,
    )
    assert two[24].result().tokens == one.result().tokens
    losses = [[line["loss"] for line in run.metrics()] for run in (one, two[24])]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    name = "adapter_model.safetensors"
    expected, found = load_file(one.weights / name), load_file(two[24].weights / name)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-4, msg=key)
