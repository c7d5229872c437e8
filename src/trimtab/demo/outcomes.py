"""What the demo leaves on the disk, read back: the only thing that the table and the page are made of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.files import read_json_lines
from trimtab.results import EvaluationResult, TrainingResult
from trimtab.training import RunDirectory


@dataclass(frozen=True)
class Layout:
    """The files of the demo's output directory."""

    root: Path

    @property
    def settings(self) -> Path:
        """The settings that everything here was made with."""
        return self.root / "settings.json"

    @property
    def model(self) -> Path:
        """Facts about the base model."""
        return self.root / "model.json"

    @property
    def page(self) -> Path:
        """The page."""
        return self.root / "index.html"

    @property
    def table(self) -> Path:
        """The table as Markdown."""
        return self.root / "table.md"

    def figure(self, name: str) -> Path:
        """A figure as SVG, on white."""
        return self.root / "figures" / f"{name}.svg"

    def run(self, name: str) -> RunDirectory:
        """The run directory of a method."""
        return RunDirectory(self.root / name)

    def evaluation(self, name: str) -> Path:
        """The score of a method, or of the base."""
        return self.root / name / "evaluation" / "result.json"

    def records(self, name: str) -> Path:
        """The answers of a method, or of the base, one JSON object a line."""
        return self.root / name / "evaluation" / "records.jsonl"


@dataclass(frozen=True)
class Outcome:
    """One row of the table.

    Attributes:
        name: the method's name, or "base".
        evaluation: the score.
        records: the answers.
        model_parameters: how many the base model has.
        training: how the training ended; None: the base.
        recipe: the settings of the training; empty for the base.
        curve: what was logged at each step; empty for the base.
    """

    name: str
    evaluation: EvaluationResult
    records: list[dict[str, Any]]
    model_parameters: int
    training: TrainingResult | None
    recipe: dict[str, Any]
    curve: list[dict[str, float]]

    @classmethod
    def read(cls, layout: Layout, name: str) -> Outcome:
        """The outcome of a finished method, or of the base."""
        run = layout.run(name)
        trained = run.finished
        return cls(
            name=name,
            evaluation=EvaluationResult.load(layout.evaluation(name)),
            records=read_json_lines(layout.records(name)),
            model_parameters=json.loads(layout.model.read_text(encoding="utf-8"))["parameters"],
            training=run.result() if trained else None,
            recipe=run.recipe() if trained else {},
            curve=run.metrics() if trained else [],
        )

    @property
    def percent(self) -> float:
        """Accuracy in percent."""
        return 100 * self.evaluation.accuracy.value

    @property
    def percent_error(self) -> float:
        """Its standard error in percent points."""
        return 100 * self.evaluation.accuracy.standard_error

    @property
    def parameters(self) -> int:
        """How many were trained."""
        return self.training.trainable_parameters if self.training else 0
