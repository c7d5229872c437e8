"""The training runs that `test_training_distributed.py` compares: the same code in one process and in two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from torch import nn
from transformers import DataCollatorForSeq2Seq, PreTrainedModel, Trainer, TrainingArguments

from tiny_language import byte_tokenizer
from tiny_sums import sums, tokenised_sums
from trimtab import SteeringConfig

STEPS = 5
BATCH = 4


def steered(base: PreTrainedModel, adapter_seed: int = 0) -> PeftModel:
    """The base with an adapter that starts at random, so that both of its factors get gradients at once."""
    torch.manual_seed(adapter_seed)
    return get_peft_model(base, SteeringConfig(r=4, init_weights=False, task_type="CAUSAL_LM"))


def penalised(base: PreTrainedModel, adapter_seed: int = 0) -> PeftModel:
    """The base with LoFiT's scalers, whose L1 norm is in the loss; far from 0, where its gradient would jump."""
    config = SteeringConfig(intervention="head_scale", site="heads", penalty=0.02, task_type="CAUSAL_LM")
    model = get_peft_model(base, config)
    torch.manual_seed(adapter_seed)
    with torch.no_grad():
        for parameter in filter(lambda each: each.requires_grad, model.parameters()):
            parameter.normal_()
    return model


def plain_loop(model: nn.Module, rows: slice = slice(None)) -> None:
    """STEPS steps of SGD with momentum on `rows` of each global batch of BATCH sequences.

    The sequences have equal lengths: the mean of the processes' mean losses is the mean over all tokens.
    """
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05, momentum=0.9)
    for _ in range(STEPS):
        ids = torch.randint(0, 256, (BATCH, 12), generator=generator)[rows]
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()


def counted_loop(model: nn.Module, rows: slice = slice(None), processes: int = 1) -> None:
    """STEPS steps of SGD on batches whose rows have different numbers of labels, divided as transformers' Trainer does.

    A process's loss is its share of the mean over all tokens, times the number of processes, over which it is averaged.
    """
    model.train()  # else its loss has no penalty
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05, momentum=0.9)
    for _ in range(STEPS):
        ids = torch.randint(0, 256, (BATCH, 12), generator=generator)
        labels = ids.masked_fill(torch.arange(12) < torch.tensor([1, 10, 3, 8])[:, None], -100)
        count = (labels[:, 1:] != -100).sum()
        loss = model(input_ids=ids[rows], labels=labels[rows], num_items_in_batch=count).loss
        (processes * loss).backward()
        optimiser.step()
        optimiser.zero_grad()


def arguments(directory: Path, rows_a_process: int) -> dict[str, Any]:
    """Settings of the trainers; SGD, which passes rounding errors on in proportion."""
    return {
        "output_dir": str(directory),
        "max_steps": STEPS,
        "per_device_train_batch_size": rows_a_process,
        "learning_rate": 0.3,
        "optim": "sgd",
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.5,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
    }


def trainer(directory: Path, model: PeftModel, rows_a_process: int) -> Trainer:
    """transformers' Trainer on the sums, whose numbers of supervised tokens differ."""
    return Trainer(
        model=model,
        args=TrainingArguments(**arguments(directory, rows_a_process)),
        train_dataset=tokenised_sums(),
        data_collator=DataCollatorForSeq2Seq(byte_tokenizer(chat=True)),
    )


def sft_trainer(directory: Path, model: PreTrainedModel, rows_a_process: int, adapter_seed: int = 0) -> Trainer:
    """TRL's SFTTrainer on the sums as text, with `peft_config`, at positions that padding moves."""
    # Here, so that the modes that do not need TRL do not wait for its import.
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    torch.manual_seed(adapter_seed)
    return SFTTrainer(
        model=model,
        args=SFTConfig(**arguments(directory, rows_a_process)),
        train_dataset=Dataset.from_list([{"prompt": asked, "completion": answer} for asked, answer in sums()]),
        processing_class=byte_tokenizer(chat=True),
        peft_config=SteeringConfig(r=4, init_weights=False, positions="first_last(3,2)"),
    )
