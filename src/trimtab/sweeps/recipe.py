"""What a sweep recipe says: the grid, how it is trained and scored, and what is kept of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from trimtab.registry import check_choice

Stage = Literal["test", "validation"]
Keep = Literal["adapters", "nothing", "all"]

Entry = str | dict[str, Any]


@dataclass(frozen=True)
class SweepRecipe:
    """The grid of a sweep.

    An entry of `models`, `tasks` or `methods` is a name, or a mapping with the name and what belongs to this entry
    alone; `training` in an entry changes the recipe's `training`, the method's over the task's over the model's.

    Args:
        models: names as in `load_model`, or entries with name and training.
        tasks: names as in `get_task`, or entries with name, options, training, validation_examples and test_examples.
        methods: names of methods, or entries with method, label, learning_rates, training and any setting of
            `get_method`, as in "method: post-block, r: 1, label: rank 1".
        learning_rates: tried for each method, or "every: 2" for every second rate of the method's own grid; each
            method's own grid if not given.
        seeds: of the runs at the chosen rate.
        selection_seeds: of the runs that choose the rate; the first of the seeds if not given.
        stage: test, or validation for a study that never touches test: the seeds are then scored on validation too.
        training: settings of training, as in `trimtab train`, but for seed and device.
        validation_examples: how many choose the rate; all if not given.
        test_examples: how many the seeds are scored on at stage test; all if not given.
        batch_tokens: tokens in a batch of answers.
        keep: of the trained weights: adapters, nothing or all (fully fine-tuned models too).
        together: how many adapters are trained in one pass over one base, at most; 1: each run alone.
    """

    models: list[Entry]
    tasks: list[Entry]
    methods: list[Entry]
    learning_rates: list[float] | dict[str, int] | None = None
    seeds: list[int] = field(default_factory=lambda: [0])
    selection_seeds: list[int] | None = None
    stage: str = "test"
    training: dict[str, Any] = field(default_factory=dict)
    validation_examples: int | None = None
    test_examples: int | None = None
    batch_tokens: int = 8192
    keep: str = "adapters"
    together: int = 1

    def __post_init__(self) -> None:
        """Refuse an empty grid, a value twice and an unknown choice."""
        check_choice("stage", self.stage, get_args(Stage))
        check_choice("keep", self.keep, get_args(Keep))
        for name in ("models", "tasks", "methods", "seeds"):
            if not getattr(self, name):
                raise ValueError(f"The grid is empty: {name} has no entry.")
        for name in ("seeds", "selection_seeds"):
            check_distinct(name, getattr(self, name) or ())
        if self.selection_seeds == []:
            raise ValueError("The grid is empty: selection_seeds has no entry.")
        for name in ("batch_tokens", "together"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r} must be at least 1.")

    @property
    def choosing_seeds(self) -> list[int]:
        """The seeds of the runs that choose the rate."""
        return self.seeds[:1] if self.selection_seeds is None else self.selection_seeds

    def to_dict(self) -> dict[str, Any]:
        """Every option, as plain values."""
        return asdict(self)


def check_distinct(name: str, values: Any) -> None:
    """Raise a ValueError if a value stands twice among `values`: the same run would be planned twice."""
    seen = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{name} has {value!r} twice.")
        seen.add(value)
