"""A steering adapter in TRL's DPOTrainer: what is trained, and what the reference is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from trl import DPOConfig, DPOTrainer

from tiny_language import byte_tokenizer, tiny_model
from tiny_sums import adapter_weights, base_weights, sums
from trimtab import SteeringConfig, prompt_lengths


def preferences() -> Dataset:
    """The right sum, chosen over a wrong one of another length."""
    rows = [{"prompt": prompt, "chosen": right, "rejected": f"1{right}!"} for prompt, right in sums()]
    return Dataset.from_list(rows)


def trainer_in(directory: Path, model: nn.Module, config: SteeringConfig | None, **arguments: Any) -> DPOTrainer:
    """A DPOTrainer on the preferences: batches of 4 pairs, AdamW at 1e-2."""
    settings: dict[str, Any] = {
        "max_steps": 8,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "beta": 0.5,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
    }
    return DPOTrainer(
        model=model,
        args=DPOConfig(output_dir=str(directory), **{**settings, **arguments}),
        train_dataset=preferences(),
        processing_class=byte_tokenizer(chat=True),
        peft_config=config,
    )


@torch.no_grad()
def log_probabilities(model: nn.Module, inputs: dict[str, Tensor]) -> list[float]:
    """Sum of log p over each completion, one unpadded row at a time, its prompt's length said."""
    found = []
    for ids, real, completion in zip(
        inputs["input_ids"], inputs["attention_mask"], inputs["completion_mask"], strict=True
    ):
        ids, completion = ids[real.bool()], completion[real.bool()].bool()
        with prompt_lengths(model, [int((~completion).sum())]):
            scores = model.eval()(input_ids=ids[None]).logits[0].log_softmax(-1)
        found.append(sum(scores[i - 1, ids[i]].item() for i in completion.nonzero().flatten()))
    return found


def reference_of(trainer: DPOTrainer, inputs: dict[str, Tensor]) -> Tensor:
    """The reference's log-probabilities as the trainer computes them: the chosen, then the rejected."""
    return torch.cat(trainer.compute_ref_log_probs(trainer.model, inputs))


def test_dpo_prefers_the_chosen_and_refers_to_the_base(tmp_path: Path) -> None:
    """The loss starts at log 2 (a fresh adapter is the reference) and falls; the reference stays the base."""
    trainer = trainer_in(tmp_path, tiny_model(), SteeringConfig(r=4))
    trainer.train()

    logged = [line for line in trainer.state.log_history if "loss" in line]
    assert math.isclose(logged[0]["loss"], math.log(2), abs_tol=1e-6)
    assert logged[-1]["loss"] < 0.5
    assert logged[-1]["rewards/accuracies"] == 1.0
    untouched = tiny_model().state_dict()
    assert all(torch.equal(tensor, untouched[name]) for name, tensor in base_weights(trainer.model).items())

    inputs = next(iter(trainer.get_train_dataloader()))
    expected = torch.tensor(log_probabilities(tiny_model(), inputs))
    torch.testing.assert_close(reference_of(trainer, inputs), expected, atol=1e-4, rtol=0)
    policy = torch.tensor(log_probabilities(trainer.model, inputs))
    assert (policy - expected).abs().max() > 0.1


def test_dpo_on_a_trained_adapter_refers_to_its_copy(tmp_path: Path) -> None:
    """Given a PeftModel, TRL copies its adapter to "ref": complete, unchanged, and the reference."""
    model = get_peft_model(tiny_model(), SteeringConfig(r=4, init_weights=False, task_type="CAUSAL_LM"))
    start = adapter_weights(model)
    model.save_pretrained(tmp_path / "start")
    trainer = trainer_in(tmp_path / "run", model, None)
    trainer.train()

    assert [line["loss"] for line in trainer.state.log_history if "loss" in line][-1] < 0.5
    copied, trained = adapter_weights(trainer.model, "ref"), adapter_weights(trainer.model)
    for name, tensor in start.items():
        assert torch.equal(copied[name], tensor), name
        assert not torch.equal(trained[name], tensor), name

    inputs = next(iter(trainer.get_train_dataloader()))
    first = PeftModel.from_pretrained(tiny_model(), tmp_path / "start")
    expected = torch.tensor(log_probabilities(first, inputs))
    torch.testing.assert_close(reference_of(trainer, inputs), expected, atol=1e-4, rtol=0)
    # The reference's forward switches adapters: afterwards the policy is active and trainable again.
    assert trainer.model.active_adapter == "default"
    assert all(".default." in name for name, p in trainer.model.named_parameters() if p.requires_grad)
    assert any(p.requires_grad for p in trainer.model.parameters())


def test_precomputed_reference_equals_the_base(tmp_path: Path) -> None:
    """`precompute_ref_log_probs` stores the base's log-probabilities with the examples."""
    trainer = trainer_in(tmp_path, tiny_model(), SteeringConfig(r=4), precompute_ref_log_probs=True)
    trainer.train()

    inputs = next(iter(trainer.get_train_dataloader()))
    stored = torch.cat([inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]])
    expected = torch.tensor(log_probabilities(tiny_model(), inputs))
    torch.testing.assert_close(stored, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("positions", ["generated", "last_prompt", "first_last(2,1)"])
def test_positions_are_told_from_the_labels(tmp_path: Path, positions: str) -> None:
    """Chosen and rejected rows of other lengths in one padded batch: each is steered as it is alone."""
    config = SteeringConfig(r=4, positions=positions, init_weights=False, task_type="CAUSAL_LM")
    model = get_peft_model(tiny_model(), config)
    trainer = trainer_in(tmp_path, model, None)
    inputs = next(iter(trainer.get_train_dataloader()))
    found = reference_of(trainer, inputs)  # a copy of the adapter
    expected = torch.tensor(log_probabilities(model, inputs))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert (expected - torch.tensor(log_probabilities(tiny_model(), inputs))).abs().max() > 1e-2


def test_a_resumed_run_ends_where_an_undisturbed_one_does(tmp_path: Path) -> None:
    """Stopped after four of eight steps, another process's trainer goes on with the same numbers."""
    saved = {"save_strategy": "steps", "save_steps": 4}
    whole = trainer_in(tmp_path / "whole", tiny_model(), SteeringConfig(r=4), **saved)
    whole.train()
    resumed = trainer_in(tmp_path / "resumed", tiny_model(), SteeringConfig(r=4), **saved)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    assert resumed.state.global_step == 8
    trained = adapter_weights(whole.model)
    for name, tensor in adapter_weights(resumed.model).items():
        torch.testing.assert_close(tensor, trained[name], atol=1e-6, rtol=1e-5)
