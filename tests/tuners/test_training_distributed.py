"""Two gloo processes on the CPU train the adapter that one process trains on the same global batches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from distributed_training import BATCH, counted_loop, penalised, plain_loop, sft_trainer, steered, trainer
from peft import PeftModel
from torch import Tensor

from tiny_language import tiny_model
from tiny_sums import adapter_weights
from two_processes import run_in_two_processes

pytestmark = pytest.mark.slow

WORKER = Path(__file__).with_name("distributed_worker.py")

# Both runs add the same float32 gradients in another order: the rows of a process, then the processes' sums.
# That is an error of about 1e-6 of a gradient, which SGD passes on in proportion: 1e-6 to 2e-6 of how far the
# adapter moves in five steps. The tolerance, such a share, leaves a factor of 20 for other processors; half
# of the data, or a sum over processes instead of a mean, gives more than 1.
TOLERANCE = 4e-5


def start_of(adapter_seed: int = 0) -> dict[str, Tensor]:
    """The adapter before training."""
    return adapter_weights(steered(tiny_model(), adapter_seed))


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes, started by torchrun on this machine, left an adapter a mode."""
    return run_in_two_processes(WORKER, tmp_path_factory.mktemp("two-processes"))


def adapter_of(mode: str, directory: Path) -> dict[str, Tensor]:
    """What the two processes saved in a mode, loaded into a plain base."""
    if not (directory / mode / "adapter_config.json").exists():
        pytest.fail((directory / "log.txt").read_text(encoding="utf-8")[-5000:])
    return adapter_weights(PeftModel.from_pretrained(tiny_model(), directory / mode))


def assert_same_training(found: dict[str, Tensor], expected: dict[str, Tensor], start: dict[str, Tensor]) -> None:
    """Equal up to TOLERANCE of the distance that the adapter has moved."""
    moved = max((expected[name] - start[name]).abs().max().item() for name in expected)
    assert moved > 0.05
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=TOLERANCE * moved, rtol=0, msg=name)


@pytest.mark.parametrize("mode", ["ddp", "fsdp2"])
def test_a_plain_loop_in_two_processes(two_processes: Path, mode: str) -> None:
    """DDP and FSDP2 train one process's adapter; what FSDP2 saves is whole and loads into a plain base."""
    alone = steered(tiny_model())
    plain_loop(alone)
    assert_same_training(adapter_of(mode, two_processes), adapter_weights(alone), start_of())


@pytest.mark.parametrize("mode", ["trainer_ddp", "trainer_fsdp2"])
def test_the_trainer_in_two_processes(two_processes: Path, tmp_path: Path, mode: str) -> None:
    """transformers' Trainer, on a replicated base and on one that is sharded on loading."""
    alone = trainer(tmp_path, steered(tiny_model()), BATCH)
    alone.train()
    assert_same_training(adapter_of(mode, two_processes), adapter_weights(alone.model), start_of())


@pytest.mark.parametrize("mode", ["penalty_ddp", "penalty_fsdp2"])
def test_a_penalty_in_two_processes(two_processes: Path, tmp_path: Path, mode: str) -> None:
    """It counts once a step, though the processes have different shares of the step's supervised tokens."""
    alone = trainer(tmp_path, penalised(tiny_model()), BATCH)
    start = adapter_weights(alone.model)
    alone.train()
    assert_same_training(adapter_of(mode, two_processes), adapter_weights(alone.model), start)


def test_a_penalty_on_sharded_parameters(two_processes: Path) -> None:
    """Where the processes have different shares of the labels, each shard still gets the gradient of the whole."""
    alone = penalised(tiny_model())
    start = adapter_weights(alone)
    counted_loop(alone)
    assert_same_training(adapter_of("penalty_sharded", two_processes), adapter_weights(alone), start)


@pytest.mark.parametrize("mode", ["sft_ddp", "sft_fsdp2"])
def test_sft_in_two_processes(two_processes: Path, tmp_path: Path, mode: str) -> None:
    """TRL's SFTTrainer with `peft_config`, at some positions, on a replicated base and on one sharded on loading."""
    alone = sft_trainer(tmp_path, tiny_model(), BATCH)
    start = adapter_weights(alone.model)
    alone.train()
    assert_same_training(adapter_of(mode, two_processes), adapter_weights(alone.model), start)
