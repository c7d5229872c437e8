"""A steering adapter in transformers' Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

from tiny_language import byte_tokenizer, tiny_model
from tiny_sums import adapter_weights, base_weights, tokenised_sums
from trimtab import SteeringConfig


def trainer_in(directory: Path, adapter_seed: int = 0, **arguments: Any) -> Trainer:
    """A Trainer on the sums: batches of 4, AdamW at 1e-2, every step logged."""
    model = tiny_model()
    torch.manual_seed(adapter_seed)
    settings: dict[str, Any] = {
        "max_steps": 6,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
    }
    return Trainer(
        model=get_peft_model(model, SteeringConfig(r=4, task_type="CAUSAL_LM")),
        args=TrainingArguments(output_dir=str(directory), **{**settings, **arguments}),
        train_dataset=tokenised_sums(),
        data_collator=DataCollatorForSeq2Seq(byte_tokenizer()),
    )


def losses(trainer: Trainer) -> dict[int, float]:
    """The logged loss of each step."""
    return {line["step"]: line["loss"] for line in trainer.state.log_history if "loss" in line}


@pytest.mark.parametrize("mixed_precision", [False, True])
def test_trainer_lowers_the_loss_and_leaves_the_base(tmp_path: Path, mixed_precision: bool) -> None:
    """Three epochs lower the loss, also under bfloat16 autocast; the base keeps every bit."""
    trainer = trainer_in(tmp_path, max_steps=12, bf16=mixed_precision)
    trainer.train()

    logged = losses(trainer)
    assert sum(logged[step] for step in (9, 10, 11, 12)) < sum(logged[step] for step in (1, 2, 3, 4)) - 1
    untouched = tiny_model().state_dict()
    assert all(torch.equal(tensor, untouched[name]) for name, tensor in base_weights(trainer.model).items())
    assert {tensor.dtype for tensor in adapter_weights(trainer.model).values()} == {torch.float32}


def test_a_checkpoint_holds_the_adapter_alone(tmp_path: Path) -> None:
    """No file of base weights; the adapter's file and the optimiser's state have its numbers only."""
    trainer = trainer_in(tmp_path, save_strategy="steps", save_steps=6)
    trainer.train()

    checkpoint = tmp_path / "checkpoint-6"
    assert [file.name for file in checkpoint.glob("*.safetensors")] == ["adapter_model.safetensors"]
    assert not list(checkpoint.glob("pytorch_model*"))
    saved = load_file(checkpoint / "adapter_model.safetensors")
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    assert sum(tensor.numel() for tensor in saved.values()) == sum(p.numel() for p in trained)
    state = torch.load(checkpoint / "optimizer.pt", weights_only=True)["state"]
    assert len(state) == len(trained)

    loaded = PeftModel.from_pretrained(tiny_model(), checkpoint)
    for name, tensor in adapter_weights(trainer.model).items():
        assert torch.equal(adapter_weights(loaded)[name], tensor), name


def test_a_resumed_run_has_the_numbers_of_one_that_was_not_interrupted(tmp_path: Path) -> None:
    """Steps 4 to 6 from the checkpoint of step 3 have the same losses, and end with the same bits."""
    whole = trainer_in(tmp_path, save_strategy="steps", save_steps=3)
    whole.train()
    # Another start of the adapter: what the checkpoint does not bring back would show.
    resumed = trainer_in(tmp_path, adapter_seed=7)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))

    assert losses(resumed) == losses(whole)
    for name, tensor in adapter_weights(whole.model).items():
        assert torch.equal(adapter_weights(resumed.model)[name], tensor), name


def test_accumulated_micro_batches_equal_one_batch(tmp_path: Path) -> None:
    """Four batches of one example, of unequal numbers of supervised tokens, train like one batch of four."""
    whole = trainer_in(tmp_path / "whole", lr_scheduler_type="constant", optim="sgd", learning_rate=0.5)
    parts = trainer_in(
        tmp_path / "parts",
        lr_scheduler_type="constant",
        optim="sgd",
        learning_rate=0.5,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=4,
    )
    before = adapter_weights(whole.model)
    whole.train()
    parts.train()

    expected, found = adapter_weights(whole.model), adapter_weights(parts.model)
    moved = max((expected[name] - before[name]).abs().max() for name in expected)
    assert moved > 1e-3
    for name, tensor in expected.items():
        # The same sum in another order of float32 additions, over 6 steps.
        torch.testing.assert_close(found[name], tensor, atol=1e-3 * moved.item(), rtol=0, msg=name)
