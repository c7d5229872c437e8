"""Penalties in the loss of trainers: once an optimiser step, whoever divides it, and told the step by a callback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments
from trl import SFTConfig, SFTTrainer

from tiny_language import byte_tokenizer
from tiny_models import steering_layers
from tiny_sums import sums, tokenised_sums
from trimtab import PenaltyStep
from tuners.penalised import COEFFICIENT, adapted, scalers

RATE = 0.5


def settings(directory: Path, micro_batch: int, steps: int) -> dict[str, Any]:
    """One step of SGD without clipping, over 4 examples in micro-batches of `micro_batch`."""
    return {
        "output_dir": str(directory),
        "max_steps": steps,
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": 4 // micro_batch,
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        "max_grad_norm": 1e9,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "bf16": False,
    }


def by_trainer(directory: Path, model: PeftModel, micro_batch: int, steps: int = 1, **more: Any) -> Trainer:
    return Trainer(
        model=model,
        args=TrainingArguments(**settings(directory, micro_batch, steps)),
        train_dataset=tokenised_sums(),
        data_collator=DataCollatorForSeq2Seq(byte_tokenizer()),
        **more,
    )


def by_trl(directory: Path, model: PeftModel, micro_batch: int, steps: int = 1, **more: Any) -> SFTTrainer:
    arguments = SFTConfig(**settings(directory, micro_batch, steps), gradient_checkpointing=False)
    examples = [{"prompt": asked, "completion": answer} for asked, answer in sums()]
    return SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(examples),
        processing_class=byte_tokenizer(chat=True),
        **more,
    )


def moved_by_the_penalty(directory: Path, trainer: Any, micro_batch: int) -> tuple[torch.Tensor, float]:
    """What one step moves A with the penalty more than without, and how much larger the logged loss is."""
    after, losses = [], []
    for coefficient in (COEFFICIENT, 0.0):
        trained = trainer(directory, adapted(coefficient), micro_batch)
        trained.train()
        after.append(scalers(trained.model))
        losses.append(trained.state.log_history[0]["loss"])
    return after[0] - after[1], losses[0] - losses[1]


@pytest.mark.parametrize("micro_batch", [4, 1])
@pytest.mark.parametrize("trainer", [by_trainer, by_trl])
def test_a_trainer_counts_it_once_a_step(tmp_path: Path, trainer: Any, micro_batch: int) -> None:
    """One step of SGD moves A by -rate * coefficient * sign(A) more, in one batch and in four micro-batches.

    The micro-batches have different numbers of supervised tokens.
    """
    start = scalers(adapted())
    moved, more_loss = moved_by_the_penalty(tmp_path, trainer, micro_batch)
    torch.testing.assert_close(moved, -RATE * COEFFICIENT * start.sign(), rtol=1e-4, atol=1e-6)
    assert more_loss == pytest.approx(COEFFICIENT * start.abs().sum().item(), rel=1e-3)


def test_a_trainer_that_averages_micro_batches_counts_it_once(tmp_path: Path) -> None:
    """Where the Trainer divides the micro-batches' means itself, the penalty is divided with them."""
    start = scalers(adapted())

    def averaging(*arguments: Any) -> Trainer:
        trainer = by_trainer(*arguments)
        trainer.model_accepts_loss_kwargs = False
        return trainer

    moved, _ = moved_by_the_penalty(tmp_path, averaging, 1)
    torch.testing.assert_close(moved, -RATE * COEFFICIENT * start.sign(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("trainer", [by_trainer, by_trl])
def test_the_callback_tells_the_step(tmp_path: Path, trainer: Any) -> None:
    """With PenaltyStep the adapters know the step of other trainers: 2 in the third one."""
    trained = trainer(tmp_path, adapted(None, "jola"), 2, steps=3, callbacks=[PenaltyStep()])
    trained.train()
    assert {layer.training_step for layer in steering_layers(trained.model)} == {2}
