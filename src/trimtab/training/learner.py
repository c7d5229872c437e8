"""One of several adapters that are trained at a time: its parameters, its rule and its losses."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import get_scheduler
from trl import SFTConfig

from trimtab.training.callbacks import MetricsFile
from trimtab.training.rate_factors import split_by_rate
from trimtab.tuners.steering.files import INTERVENTIONS

LEARNER = "learner"
"""The key under which a group of the optimiser holds the index of its adapter."""


@dataclass(frozen=True)
class Learner:
    """One of the adapters that are trained.

    Attributes:
        name: of the adapter.
        arguments: its rule: learning rate, schedule, weight decay, seed of its batches; the rest is the same for all.
        metrics: where its losses go; None: nowhere, they are written already.
        rate_factors: see `Method`.
    """

    name: str
    arguments: SFTConfig
    metrics: MetricsFile | None
    rate_factors: Mapping[str, float] = field(default_factory=dict)

    def parameters(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """What it trains, by its name in the model."""
        part = f".{INTERVENTIONS}.{self.name}."
        return {name: parameter for name, parameter in model.named_parameters() if part in name}

    def groups(
        self, index: int, parameters: Mapping[str, nn.Parameter], decayed: Collection[str]
    ) -> Iterator[dict[str, Any]]:
        """Groups of the optimiser: with and without weight decay, and of each learning rate.

        Args:
            index: what stands in them under `LEARNER`.
            parameters: its own, by name.
            decayed: names of all parameters that weight decay is for.
        """
        rule = self.arguments
        for decay in (True, False):
            chosen = [value for name, value in parameters.items() if (name in decayed) == decay]
            weight_decay = rule.weight_decay if decay else 0.0
            group = {"params": chosen, "lr": rule.learning_rate, "weight_decay": weight_decay, LEARNER: index}
            yield from split_by_rate([group], parameters, self.rate_factors)

    def schedule(self, steps: int) -> Callable[[int], float]:
        """The factor on the learning rate at each step, as the Trainer would make it."""
        schedule = get_scheduler(
            self.arguments.lr_scheduler_type,
            torch.optim.SGD([torch.zeros(1)]),  # anything: schedules are made for an optimiser
            num_warmup_steps=self.arguments.get_warmup_steps(steps),
            num_training_steps=steps,
        )
        factor: Callable[[int], float] = schedule.lr_lambdas[0]
        return factor
