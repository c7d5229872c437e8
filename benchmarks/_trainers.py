"""The contestants that run in a trainer: TRL's own SFTTrainer as it is, and trimtab's.

Both get the same arguments, rows and optimiser. TRL's defaults for gradient checkpointing and autocast would
only slow this setting down: they are off for both. A step lasts from the end of the one before to its own
end: batches, logging and callbacks belong to it, setting up does not.
"""

from __future__ import annotations

import tempfile
import time
from itertools import pairwise
from typing import Any

from _contestants import IN_A_TRAINER
from _measure import Job, Measured, PeakMemory, random_batch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from trl import SFTConfig, SFTTrainer

from trimtab.training.trainer import CompletionTrainer


class StepEnds(TrainerCallback):
    """Remembers when each step ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called after the update."""
        self.times.append(time.perf_counter())

    @property
    def seconds(self) -> list[float]:
        """How long each step but the first took."""
        return [after - before for before, after in pairwise(self.times)]


def measure_in_trainer(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, job: Job, memory: PeakMemory
) -> Measured:
    """Train for one step more than is timed, on rows of the common batch in the trainer's own order."""
    attach, kind = IN_A_TRAINER[job.contestant]
    model = attach(base, job)
    ids, labels = random_batch(base.config.vocab_size, job)
    rows = [{"input_ids": i, "labels": j} for i, j in zip(ids.tolist(), labels.tolist(), strict=True)]
    dataset = Dataset.from_list(rows * (job.steps + 1))
    ends = StepEnds()
    with tempfile.TemporaryDirectory() as directory:
        arguments = _arguments(directory, job)
        if kind == "trimtab":
            trainer: SFTTrainer = CompletionTrainer(model, arguments, dataset, tokenizer, job.rows, [ends])
        else:
            trainer = SFTTrainer(model, arguments, train_dataset=dataset, processing_class=tokenizer, callbacks=[ends])
        trainer.train()
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return Measured(ends.seconds, memory.mib, trained, trainer.state.log_history[0]["loss"])


def _arguments(directory: str, job: Job) -> SFTConfig:
    return SFTConfig(
        output_dir=directory,
        max_steps=job.steps + 1,
        per_device_train_batch_size=job.rows,
        learning_rate=1e-4,
        lr_scheduler_type="constant",
        optim="adamw_torch",
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
