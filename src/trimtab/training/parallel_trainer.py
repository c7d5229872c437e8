"""A trainer of several adapters at a time: each has its own rows of the batch, and its own rule."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset
from jaxtyping import Int
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import PreTrainedTokenizerBase, TrainerCallback

from trimtab.files import write_text
from trimtab.training.batches import LengthGroupedSampler, ParallelSampler
from trimtab.training.carried import Carried
from trimtab.training.learner import LEARNER, Learner
from trimtab.training.loss import IGNORED
from trimtab.training.outcome import diverged
from trimtab.training.parallel_batches import ByIndices, by_order, collate_orders
from trimtab.training.rate_factors import FACTOR
from trimtab.training.trainer import CompletionTrainer
from trimtab.tuners.steering import SteeringModel, adapter_rows
from trimtab.tuners.steering.files import WEIGHTS
from trimtab.tuners.steering.layer import BASE_ROW

_STATE = "parallel_state.json"


class ParallelTrainer(CompletionTrainer):
    """`CompletionTrainer` for several adapters of one model.

    A batch has a group of rows for each adapter; the rows of adapters with the same seed are the same examples. The
    loss of a group is the mean over its own labels, gradients are those of the sum of all losses (no loss depends on
    another adapter), and norms are clipped adapter by adapter. An adapter whose loss is not finite leaves the batch,
    and the others go on without it.

    Attributes:
        diverged: the error of each adapter whose loss was not finite, by its name.
        tokens: real tokens that the adapters have read so far, order by order.
    """

    def __init__(
        self,
        model: PeftModel,
        learners: Sequence[Learner],
        train_dataset: Dataset,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        callbacks: list[TrainerCallback],
        share_prefix: bool = False,
        started: float | None = None,
    ) -> None:
        """All adapters of `learners` are active in `model`; further arguments are those of `CompletionTrainer`."""
        self._learners = list(learners)
        self._seeds = list(dict.fromkeys(each.arguments.seed for each in learners))
        self._parameters = [each.parameters(model) for each in learners]
        self.diverged: dict[str, FloatingPointError] = {}
        self.tokens = [0] * len(self._seeds)
        self._summed = torch.zeros(len(learners), device=model.device)
        self._steps_summed = 0
        self._norms = torch.zeros(len(learners), device=model.device)
        self._rates = [0.0] * len(learners)
        with adapter_rows(model, [BASE_ROW]):  # how the head is read does not depend on the adapters
            super().__init__(
                model,
                learners[0].arguments,
                train_dataset,
                tokenizer,
                batch_size,
                [_Metrics(self), *callbacks],
                share_prefix,
                started=started,
            )
        self.train_dataset = ByIndices(train_dataset)
        self.data_collator = partial(collate_orders, self.data_collator)

    def order_of(self, learner: Learner) -> int:
        """Which of the orders of the examples an adapter reads."""
        return self._seeds.index(learner.arguments.seed)

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Forward and backward pass, each group of rows through its adapter."""
        with adapter_rows(self._tuned, [self._learners[index].name for index in self._going]):
            return super().training_step(*args, **kwargs)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """The sum of the adapters' losses, each the mean over the supervised tokens of its own part of the batch.

        Raises:
            FloatingPointError: none of the losses is finite.
        """
        if return_outputs or not isinstance(num_items_in_batch, Tensor):
            raise NotImplementedError("ParallelTrainer only trains; evaluate with trimtab.evaluation.")
        going = self._going
        orders = torch.tensor([self.order_of(self._learners[index]) for index in going], device=self._summed.device)
        ids, mask, labels = (by_order(inputs[key], len(self._seeds))[orders].flatten(0, 1) for key in _INPUTS)
        totals = self._completion_loss.of_groups(ids, mask, labels, len(going), model)
        losses = totals / num_items_in_batch[orders]
        self._summed[going] += losses.detach()
        finite = torch.isfinite(losses).tolist()
        for index, loss, good in zip(going, losses, finite, strict=True):
            if not good:
                learner = self._learners[index]
                self.diverged[learner.name] = diverged(loss, self.state.global_step + 1, self._rate(index))
        if not any(finite):
            raise FloatingPointError("Every training of the group diverged.")
        return torch.stack([loss for loss, good in zip(losses, finite, strict=True) if good]).sum()

    @property
    def _going(self) -> list[int]:
        """The indices of the adapters that have not diverged."""
        return [index for index, each in enumerate(self._learners) if each.name not in self.diverged]

    def _rate(self, index: int) -> float:
        """The learning rate of an adapter in this step."""
        groups = cast(torch.optim.Optimizer, self.optimizer).param_groups
        first = next(group for group in groups if group[LEARNER] == index)
        return float(first["lr"] / first[FACTOR])

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW with groups of parameters for each adapter: with and without weight decay, and of each rate."""
        if self.optimizer is None:
            decayed = set(self.get_decay_parameter_names(self._tuned))
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, self._tuned)
            pairs = enumerate(zip(self._learners, self._parameters, strict=True))
            groups = [group for index, (each, own) in pairs for group in each.groups(index, own, decayed)]
            self.optimizer = kind(groups, **options)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        """Each adapter's own schedule for its groups of parameters."""
        if self.lr_scheduler is None:
            optimizer = cast(torch.optim.Optimizer, optimizer or self.optimizer)
            learners = [self._learners[group[LEARNER]] for group in optimizer.param_groups]
            self.lr_scheduler = LambdaLR(optimizer, [each.schedule(num_training_steps) for each in learners])
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the Trainer's, but of the mean over the adapters."""
        if "loss" in logs:
            logs = {**logs, "loss": logs["loss"] / len(self._going)}
        super().log(logs, start_time)

    def metrics(self, index: int) -> dict[str, float]:
        """What is logged of one adapter: its mean loss since the last time, and rate and norm of the last step."""
        loss = self._summed[index].item() / self._steps_summed
        return {"loss": loss, "learning_rate": self._rates[index], "grad_norm": self._norms[index].item()}

    def forget_losses(self) -> None:
        """Begin a new interval of logging."""
        self._summed.zero_()
        self._steps_summed = 0

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As the Trainer's: the adapters in folders of their names; and what is counted adapter by adapter."""
        super().save_model(output_dir, _internal_call)
        state = {
            "tokens": self.tokens,
            "diverged": {name: str(error) for name, error in self.diverged.items()},
            "summed": self._summed.tolist(),
            "steps_summed": self._steps_summed,
        }
        write_text(Path(output_dir or str(self.args.output_dir)) / _STATE, json.dumps(state))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Every adapter as it was; the Trainer's own way makes one of them trainable."""
        checkpoint = Path(resume_from_checkpoint)
        self.carried = Carried.load(checkpoint)
        for learner, parameters in zip(self._learners, self._parameters, strict=True):
            saved = load_file(checkpoint / learner.name / WEIGHTS)
            with torch.no_grad():
                for name, parameter in parameters.items():
                    parameter.copy_(saved[SteeringModel._remove_adapter_name_from_key(name, learner.name)])
        state = json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
        self.tokens = state["tokens"]
        self.diverged = {name: FloatingPointError(message) for name, message in state["diverged"].items()}
        # Checkpoints of earlier versions have no sums.
        self._summed += torch.tensor(state.get("summed", 0.0), device=self._summed.device)
        self._steps_summed = state.get("steps_summed", 0)

    def _order(self, lengths: list[int], batch_size: int, seed: int) -> ParallelSampler:
        return ParallelSampler([LengthGroupedSampler(lengths, batch_size, each) for each in self._seeds])

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Int[Tensor, " orders"]:
        counts = [by_order(batch["labels"][:, 1:] != IGNORED, len(self._seeds)).sum((1, 2)) for batch in batch_samples]
        return torch.stack(counts).sum(0).to(device)

    def _track_num_input_tokens(self, inputs: dict[str, Tensor]) -> None:
        super()._track_num_input_tokens(inputs)
        read = by_order(inputs["attention_mask"], len(self._seeds)).sum((1, 2)).tolist()
        self.tokens = [before + more for before, more in zip(self.tokens, read, strict=True)]

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        going = self._going
        for index, parameters in enumerate(self._parameters):
            if index in going:
                norm = self.accelerator.clip_grad_norm_(list(parameters.values()), self.args.max_grad_norm)
                self._norms[index] = norm
                self._rates[index] = self._rate(index)
            else:
                for parameter in parameters.values():
                    parameter.grad = None  # AdamW leaves it alone then
        self._steps_summed += 1
        return self._norms[going].norm()


class _Metrics(TrainerCallback):
    """Appends what is logged to the file of each adapter."""

    def __init__(self, trainer: ParallelTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep the lines up to the step that training starts at."""
        for learner in self._trainer._learners:
            if learner.metrics is not None:
                learner.metrics.keep(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write a line for each adapter that is still trained."""
        if "loss" not in kwargs["logs"]:
            return  # the summary at the end
        trainer = self._trainer
        for index in trainer._going:
            learner = trainer._learners[index]
            if learner.metrics is not None:
                logs = {**kwargs["logs"], **trainer.metrics(index)}
                learner.metrics.append(state.global_step, logs, trainer.tokens[trainer.order_of(learner)])
        trainer.forget_losses()


_INPUTS = ("input_ids", "attention_mask", "labels")
