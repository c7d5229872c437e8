"""A steering adapter in TRL's GRPOTrainer: the policy that is trained is the policy that generates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel
from trl import GRPOConfig, GRPOTrainer

from tiny_language import byte_tokenizer, tiny_model
from tiny_sums import adapter_weights, base_weights, sums
from trimtab import SteeringConfig

LENGTH = 8
TOKEN = 65


class ShareOfSmallIds:
    """A reward: the share of a completion's tokens whose id is below 128. It keeps what it was shown."""

    __name__ = "share_of_small_ids"

    def __init__(self) -> None:
        self.completions: list[list[int]] = []
        self.means: list[float] = []

    def __call__(self, completion_ids: list[list[int]], **columns: Any) -> list[float]:
        rewards = [sum(token < 128 for token in ids) / len(ids) for ids in completion_ids]
        self.completions += completion_ids
        self.means.append(sum(rewards) / len(rewards))
        return rewards


def policy_model() -> PreTrainedModel:
    """A base whose head can be certain of a token, so that a few steps show."""
    model = tiny_model()
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(2)
    return model


def trainer_in(
    directory: Path,
    reward: ShareOfSmallIds,
    model: nn.Module,
    config: SteeringConfig | None,
    **arguments: Any,
) -> GRPOTrainer:
    """A GRPOTrainer on the sums' prompts: 2 prompts x 16 completions a step."""
    settings: dict[str, Any] = {
        "max_steps": 10,
        "per_device_train_batch_size": 32,
        "num_generations": 16,
        "max_completion_length": LENGTH,
        "learning_rate": 1e-1,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
    }
    return GRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=GRPOConfig(output_dir=str(directory), **{**settings, **arguments}),
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt, _ in sums()]),
        processing_class=byte_tokenizer(),
        peft_config=config,
    )


@pytest.mark.parametrize("positions", ["all", "generated"])
def test_grpo_raises_the_reward_and_leaves_the_base(tmp_path: Path, positions: str) -> None:
    """From about one half, the mean reward of the sampled completions climbs; the base keeps every bit."""
    reward = ShareOfSmallIds()
    trainer = trainer_in(tmp_path, reward, policy_model(), SteeringConfig(r=16, positions=positions))
    trainer.train()

    assert sum(reward.means[-2:]) / 2 > sum(reward.means[:2]) / 2 + 0.15
    untouched = policy_model().state_dict()
    assert all(torch.equal(tensor, untouched[name]) for name, tensor in base_weights(trainer.model).items())


def test_grpo_measures_its_divergence_from_the_base(tmp_path: Path) -> None:
    """With beta > 0 the divergence is 0 for a fresh adapter (the base is the reference) and then grows."""
    trainer = trainer_in(tmp_path, ShareOfSmallIds(), policy_model(), SteeringConfig(r=4), beta=0.01, max_steps=3)
    trainer.train()

    divergences = [line["kl"] for line in trainer.state.log_history if "kl" in line]
    assert divergences[0] == 0.0
    assert divergences[2] > 1e-3


def test_grpo_on_a_trained_adapter_refers_to_its_copy(tmp_path: Path) -> None:
    """Given a PeftModel, TRL copies its adapter to "ref": the divergence starts at 0, and the copy stays."""
    config = SteeringConfig(r=4, init_weights=False, task_type="CAUSAL_LM")
    model = get_peft_model(policy_model(), config)
    start = adapter_weights(model)
    trainer = trainer_in(tmp_path, ShareOfSmallIds(), model, None, beta=0.01, max_steps=3)
    trainer.train()

    divergences = [line["kl"] for line in trainer.state.log_history if "kl" in line]
    assert divergences[0] == 0.0
    assert divergences[2] > 1e-3
    for name, tensor in start.items():
        assert torch.equal(adapter_weights(trainer.model, "ref")[name], tensor), name
        assert not torch.equal(adapter_weights(trainer.model)[name], tensor), name


def always_says(token: int, positions: str) -> PeftModel:
    """A vector after the last layer that is far longer than the stream and points to the token's logit."""
    config = SteeringConfig(intervention="vector", layers=[2], positions=positions, task_type="CAUSAL_LM")
    model = get_peft_model(policy_model(), config)
    with torch.no_grad():
        (vector,) = (p for p in model.parameters() if p.requires_grad)
        vector.copy_(1000 * model.get_input_embeddings().weight[token])
    return model


@pytest.mark.parametrize(
    ("positions", "steered"),
    [("all", range(LENGTH)), ("last_prompt", range(1)), ("generated", range(1, LENGTH))],
)
def test_grpo_samples_from_the_steered_policy(tmp_path: Path, positions: str, steered: range) -> None:
    """Completions hold the adapter's token where, and only where, the position before it is steered."""
    reward = ShareOfSmallIds()
    model = always_says(TOKEN, positions)
    trainer_in(tmp_path, reward, model, None, max_steps=1, temperature=0.25).train()

    assert len(reward.completions) == 32
    said = [(i, token) for ids in reward.completions for i, token in enumerate(ids)]
    assert {token for i, token in said if i in steered} == {TOKEN}
    assert TOKEN not in {token for i, token in said if i not in steered}


def test_a_resumed_run_ends_where_an_undisturbed_one_does(tmp_path: Path) -> None:
    """Stopped after two of four steps, it samples the same completions from there on, and learns the same."""
    saved = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    shown = {name: ShareOfSmallIds() for name in ("whole", "resumed")}
    whole = trainer_in(tmp_path / "whole", shown["whole"], policy_model(), SteeringConfig(r=4), **saved)
    whole.train()
    resumed = trainer_in(tmp_path / "resumed", shown["resumed"], policy_model(), SteeringConfig(r=4), **saved)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert shown["resumed"].completions == shown["whole"].completions[2 * 32 :]
    trained = adapter_weights(whole.model)
    for name, tensor in adapter_weights(resumed.model).items():
        torch.testing.assert_close(tensor, trained[name], atol=1e-6, rtol=1e-5)
