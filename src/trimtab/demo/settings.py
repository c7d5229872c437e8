"""Everything that the demo's numbers depend on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from trimtab.methods import Method, get_method
from trimtab.models import EMBEDDED_MODEL
from trimtab.registry import check_choice
from trimtab.tasks import get_task
from trimtab.training import TrainingSettings

BASE = "base"

SOURCE = (
    "Site, rank and optimiser are the paper's (arXiv 2603.00425, sections 5.1 and F.5). That post-block has a bias, "
    "leaves the first token alone, starts along the gradient and has decaying rates, one for each factor, is ours. "
    "Rates and batch size were tried on validation examples (benchmarks/results/demo_settings.jsonl), none of which is "
    "trained on or tested here."
)
"""Where the settings come from, for the page."""


def _methods() -> dict[str, dict[str, Any]]:
    return {
        "1-vec": {"learning_rate": 5e-3},
        "post-block-plus": {},
        "lora": {"learning_rate": 2e-3, "warmup_ratio": 0.05},
    }


@dataclass(frozen=True)
class DemoSettings:
    """What is trained on what, and how much of it.

    Args:
        model: a model of the Hugging Face hub, a directory, or smollm2-135m.
        task: a task's name or a .jsonl file.
        task_options: the task's own options.
        methods: the methods by name, each with its changes to the named row.
        train_examples: how many each method learns from, the same for all.
        epochs: passes over them.
        batch_size: examples in one step.
        test_examples: how many are asked, the same of all.
        shown_examples: how many of these, the first ones, the page shows with every answer.
        start_examples: how many a method that starts along the gradient sees before its first step.
        seed: of the adapters' start and of the order of the batches.
        dtype: of the base model, as in `load_model`.
        device: as in `load_model`.
    """

    model: str = EMBEDDED_MODEL
    task: str = "listops-small"
    task_options: dict[str, Any] = field(default_factory=dict)
    methods: dict[str, dict[str, Any]] = field(default_factory=_methods)
    train_examples: int = 800
    epochs: float = 1.0
    batch_size: int = 4
    test_examples: int = 300
    shown_examples: int = 5
    start_examples: int = 128
    seed: int = 0
    dtype: str = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        """Find every mistake before anything is trained."""
        for name in ("train_examples", "test_examples", "shown_examples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r} must be at least 1.")
        if not self.methods or BASE in self.methods:
            raise ValueError("The demo needs at least one method, and none of the name 'base'.")
        get_task(self.task, **self.task_options)
        for name in self.methods:
            self.method(name)
        self.training()

    def method(self, name: str) -> Method:
        """The method as the demo trains it."""
        return get_method(name, **self.methods[check_choice("method of the demo", name, self.methods)])

    def training(self) -> TrainingSettings:
        """The settings that all methods share."""
        return TrainingSettings(
            epochs=self.epochs,
            batch_size=self.batch_size,
            examples=self.train_examples,
            seed=self.seed,
            start_examples=self.start_examples,
            dtype=self.dtype,
            device=self.device,
        )

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON gives them back, with every setting of the methods, named or not."""
        methods = {name: self.method(name).to_dict() for name in self.methods}
        plain: dict[str, Any] = json.loads(json.dumps({**asdict(self), "methods": methods}))
        return plain

    def differences(self, other: dict[str, Any]) -> list[str]:
        """The names of the settings in which `other`, another's `to_dict()`, is not these."""
        return [name for name, value in self.to_dict().items() if other.get(name) != value]
