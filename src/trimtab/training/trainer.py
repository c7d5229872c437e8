"""TRL's SFTTrainer with trimtab's loss and batches."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from trimtab.training.batches import LengthGroupedSampler, ParallelSampler
from trimtab.training.carried import Carried, GoOn
from trimtab.training.loss import CompletionLoss
from trimtab.training.outcome import diverged
from trimtab.training.rate_factors import FACTOR, split_by_rate
from trimtab.tuners.steering import has_penalty, penalty, set_penalty_step


class CompletionTrainer(SFTTrainer):
    """SFTTrainer on tokenised examples ("input_ids", "labels") in batches of similar length.

    TRL's own fused head scores every position on a CPU (it compacts on Triton devices only) and adds metrics
    that cost a soft-max each; this loss is the plain one, at the supervised positions.

    Attributes:
        carried: what the processes before this one have left, where training goes on from a checkpoint.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        args: SFTConfig,
        train_dataset: Dataset,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        callbacks: list[TrainerCallback],
        share_prefix: bool = False,
        rate_factors: Mapping[str, float] | None = None,
        started: float | None = None,
    ) -> None:
        """Build the batches of `batch_size` (all processes and accumulation steps), then SFTTrainer.

        `started` is when the run began in this process, by `time.perf_counter()`; None: now.
        """
        self._started = time.perf_counter() if started is None else started
        self.carried = Carried()
        self._rate_factors = rate_factors or {}
        lengths = [len(ids) for ids in train_dataset["input_ids"]]
        self._sampler = self._order(lengths, batch_size, args.seed)
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            processing_class=tokenizer,
            callbacks=[_EpochOf(self._sampler), GoOn(self), *callbacks],
        )
        self.remove_callback(PrinterCallback)
        # The loss is divided by the number of tokens of the whole step, whatever the family's forward takes.
        self.model_accepts_loss_kwargs = True
        self._loss_shifts_labels = True
        if isinstance(self.model, PeftModel):
            # TRL turns the adapter of a quantised base into bfloat16, too coarse for AdamW's steps.
            for parameter in self.model.parameters():
                if parameter.requires_grad:
                    parameter.data = parameter.data.float()
        self._tuned = cast(PreTrainedModel, self.model)
        self._completion_loss = CompletionLoss(self._tuned, share_prefix)
        self._penalised = has_penalty(self._tuned)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """The mean loss over the supervised tokens of the global batch, and the adapter's penalty if it has one.

        `num_items_in_batch` counts them over all accumulation steps and processes; the processes' gradients
        are averaged, hence the factor.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        if return_outputs or num_items_in_batch is None:
            raise NotImplementedError("CompletionTrainer only trains; evaluate with trimtab.evaluation.")
        total = self._completion_loss(inputs["input_ids"], inputs["attention_mask"], inputs["labels"], model)
        loss = total * self.accelerator.num_processes / num_items_in_batch
        if self._penalised:
            set_penalty_step(self._tuned, self.state.global_step)
            loss = loss + penalty(self._tuned) / self.current_gradient_accumulation_steps  # once an optimiser step
        if not torch.isfinite(loss):
            raise diverged(loss, self.state.global_step + 1, self._get_learning_rate())
        return loss

    @property
    def seconds(self) -> float:
        """Wall time of the run so far, that of the processes before this one included, up to their last checkpoint."""
        return self.carried.seconds + time.perf_counter() - self._started

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As the Trainer's, and what a resumed run needs besides."""
        super().save_model(output_dir, _internal_call)
        loss = self.accelerator.gather(self._tr_loss.detach()).mean().item()
        if self.args.should_save:
            steps = self.state.global_step - self._globalstep_last_logged
            Carried(self.seconds, loss, steps).save(Path(output_dir or str(self.args.output_dir)))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.carried = Carried.load(Path(resume_from_checkpoint))

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The Trainer's, its groups split where parameters have learning rates of their own."""
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        if self._rate_factors and not any(FACTOR in group for group in optimizer.param_groups):
            parameters = dict((model or self._tuned).named_parameters())
            optimizer.param_groups[:] = split_by_rate(optimizer.param_groups, parameters, self._rate_factors)
        return optimizer

    def _get_learning_rate(self) -> float:
        """What is logged: the rate of parameters without a factor."""
        groups = cast(torch.optim.Optimizer, self.optimizer).param_groups
        return float(super()._get_learning_rate()) / groups[0].get(FACTOR, 1.0)

    def _order(self, lengths: list[int], batch_size: int, seed: int) -> LengthGroupedSampler | ParallelSampler:
        """The order in which examples are read."""
        return LengthGroupedSampler(lengths, batch_size, seed)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> LengthGroupedSampler | ParallelSampler:
        return self._sampler

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """No card for each checkpoint: checkpoints are deleted when the run has finished."""


class _EpochOf(TrainerCallback):
    """Tells the sampler which epoch begins, also when a resumed run begins in the middle of one."""

    def __init__(self, sampler: LengthGroupedSampler | ParallelSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.sampler.epoch = int(state.epoch)
