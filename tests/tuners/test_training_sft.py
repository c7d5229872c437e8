"""A steering adapter in TRL's SFTTrainer, given as `peft_config`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel
from trl import SFTConfig, SFTTrainer

from tiny_directory import save_tiny_model
from tiny_language import byte_tokenizer, tiny_model
from tiny_sums import adapter_weights, base_weights, sums
from trimtab import SteeringConfig


def conversations() -> Dataset:
    """The sums as a question of the user and an answer of the assistant."""
    return Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": prompt}],
                "completion": [{"role": "assistant", "content": completion}],
            }
            for prompt, completion in sums()
        ]
    )


def trainer_in(
    directory: Path,
    config: SteeringConfig | None = None,
    model: PreTrainedModel | None = None,
    adapter_seed: int = 0,
    **arguments: Any,
) -> SFTTrainer:
    """An SFTTrainer on the conversations: batches of 4, loss on the completion, AdamW at 1e-2."""
    model = tiny_model() if model is None else model
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
        "bf16": False,
        "gradient_checkpointing": False,
    }
    return SFTTrainer(
        model=model,
        args=SFTConfig(output_dir=str(directory), **{**settings, **arguments}),
        train_dataset=conversations(),
        processing_class=byte_tokenizer(chat=True),
        peft_config=SteeringConfig(r=4) if config is None else config,
    )


def losses(trainer: SFTTrainer) -> list[float]:
    """The logged loss of each step."""
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


@pytest.mark.parametrize(
    "config",
    [SteeringConfig(), SteeringConfig(r=4, positions="last_prompt"), SteeringConfig(intervention="vector")],
    ids=["default", "last-prompt", "vector"],
)
def test_sft_lowers_the_loss_and_leaves_the_base(tmp_path: Path, config: SteeringConfig) -> None:
    """Three epochs lower the loss; the base keeps every bit."""
    trainer = trainer_in(tmp_path, config, max_steps=12, learning_rate=5e-2)
    trainer.train()

    logged = losses(trainer)  # four batches are an epoch
    assert sum(logged[-4:]) / 4 < sum(logged[:4]) / 4 - 0.1
    untouched = tiny_model().state_dict()
    assert all(torch.equal(tensor, untouched[name]) for name, tensor in base_weights(trainer.model).items())


def test_gradient_checkpointing_changes_no_bit(tmp_path: Path) -> None:
    """TRL's default, recomputing the layers in the backward pass, trains the same adapter as storing them."""
    stored = trainer_in(tmp_path / "stored")
    stored.train()
    recomputed = trainer_in(tmp_path / "recomputed", gradient_checkpointing=True)
    recomputed.train()

    assert losses(recomputed) == losses(stored)
    for name, tensor in adapter_weights(stored.model).items():
        assert torch.equal(adapter_weights(recomputed.model)[name], tensor), name


def test_a_resumed_run_has_the_numbers_of_one_that_was_not_interrupted(tmp_path: Path) -> None:
    """Steps 4 to 6 from the checkpoint of step 3 have the same losses, and end with the same bits."""
    whole = trainer_in(tmp_path, save_strategy="steps", save_steps=3)
    whole.train()
    checkpoint = tmp_path / "checkpoint-3"
    assert [file.name for file in checkpoint.glob("*.safetensors")] == ["adapter_model.safetensors"]
    assert all("steering_interventions" in name for name in load_file(checkpoint / "adapter_model.safetensors"))

    resumed = trainer_in(tmp_path, adapter_seed=7)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert losses(resumed) == losses(whole)
    for name, tensor in adapter_weights(whole.model).items():
        assert torch.equal(adapter_weights(resumed.model)[name], tensor), name


def test_the_saved_model_is_the_trained_one(tmp_path: Path) -> None:
    """`save_model`, then PeftModel.from_pretrained on a fresh base: the same logits, bit for bit."""
    trainer = trainer_in(tmp_path)
    trainer.train()
    trainer.save_model()

    ids = torch.arange(10).unsqueeze(0)
    loaded = PeftModel.from_pretrained(tiny_model(), tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, trainer.model.eval()(ids).logits)
        assert not torch.equal(loaded(ids).logits, tiny_model().eval()(ids).logits)


def test_accumulated_micro_batches_equal_one_batch(tmp_path: Path) -> None:
    """Two batches of two train like one batch of four, whatever the numbers of supervised tokens."""
    plain = {"optim": "sgd", "learning_rate": 0.5, "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
    whole = trainer_in(tmp_path / "whole", **plain)
    parts = trainer_in(tmp_path / "parts", per_device_train_batch_size=2, gradient_accumulation_steps=2, **plain)
    before = adapter_weights(whole.model)
    whole.train()
    parts.train()

    expected, found = adapter_weights(whole.model), adapter_weights(parts.model)
    moved = max((expected[name] - before[name]).abs().max().item() for name in expected)
    assert moved > 1e-3
    for name, tensor in expected.items():
        # The same sum in another order of float32 additions, over 6 steps.
        torch.testing.assert_close(found[name], tensor, atol=1e-3 * moved, rtol=0, msg=name)


def test_a_quantised_base_is_trained(tmp_path: Path) -> None:
    """On a 4-bit base the loss falls and the packed weights keep every bit."""
    pytest.importorskip("bitsandbytes")
    quantised = AutoModelForCausalLM.from_pretrained(
        save_tiny_model(tmp_path / "base"),
        quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32),
        device_map={"": "cpu"},
    )
    before = {name: tensor.clone() for name, tensor in quantised.state_dict().items()}
    assert any(tensor.dtype == torch.uint8 for tensor in before.values())
    trainer = trainer_in(tmp_path / "run", model=quantised, max_steps=12)
    trainer.train()

    logged = losses(trainer)
    assert sum(logged[-4:]) / 4 < sum(logged[:4]) / 4 - 0.1
    after = base_weights(trainer.model)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
