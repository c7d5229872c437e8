"""What an analysis is, and how to add one.

An analysis is ONE file in this folder, and is found by its folder (`trimtab.registry.modules_in`): the file's name is
the analysis's name, and the file has a constant `ANALYSIS`. Files without one (this one, `stream`, ...) are tools.

    @dataclass(frozen=True)
    class MlpShare(Finding):                       # the numbers: tensors, numbers, text, and lists or dicts of them
        layers: tuple[int, ...]
        share: Float[Tensor, "layers prompts"]

        def figure(self) -> Figure: ...            # drawn in `with trimtab.figures.figure(...)`
        @property
        def caption(self) -> str: ...              # what is drawn: quantity, unit, source in the paper
        @property
        def summary(self) -> str: ...              # what came out on this subject: one to three sentences with numbers

    def mlp_share(subject: Subject, options: AnalysisOptions) -> MlpShare: ...

    ANALYSIS = Analysis(title="The MLP's share of the block's output", measure=mlp_share, needs=())

`measure` reads hidden states with `trimtab.analysis.stream` (padded batches, hooks at sites, padding left out) from
`subject.as_base()` and `subject.as_tuned()`, which put the model back as it was: training mode, gradients, adapters. It
sums over tokens (`trimtab.regression`; `layers.within_memory` for how many layers at once) instead of keeping them. A
setting that only one analysis has is one more field of `AnalysisOptions`, with a default.

`needs` are functions of (subject, options) that say what is missing, or None. `trimtab.analysis.analyze` asks them all
before anything is measured: what applies is run, what does not is listed with the reason; a name that the user asked
for and that does not apply is an error. What only the measurement can tell (a shift that is zero) raises
`NothingToMeasureError`, with the same effect. `trimtab analyze` puts the findings on one page and writes `to_dict()` as
JSON.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from torch import Tensor

from trimtab.analysis.subject import Subject
from trimtab.tuners.joint import JointConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class AnalysisOptions:
    """Settings of the analyses.

    Args:
        layers: decoder layers from 0, as in [0,10,20]; all if not given. Panels and lines by layer are at most four.
        batch_tokens: tokens of a batch, padding included: the knob for the memory of a forward pass.
        skip_first: tokens left out at the start of each prompt. On the first one language models park attention; its
            activations are many times larger than all others and the same in every prompt.
        memory_gb: for sums over tokens, in 10^9 bytes; with more layers the prompts are read several times.
        directions: how many leading singular vectors are compared (figure 3: 50).
        ranks: of the linear maps that stand for the oracle; those of 1, 4, 8 and 32 that fit if not given.
        ridge: of these maps, as a share of the mean square of what they read.
        texts: for the drift: a .txt or .jsonl file, or a task whose prompts are read; those that come with trimtab if
            not given.
        max_texts: at most this many of them.
        strengths: of the adapter, at which its drift is measured.
    """

    layers: tuple[int, ...] | None = None
    batch_tokens: int = 2048
    skip_first: int = 1
    memory_gb: float = 2.0
    directions: int = 50
    ranks: tuple[int, ...] | None = None
    ridge: float = 1e-4
    texts: str | None = None
    max_texts: int = 100
    strengths: tuple[float, ...] = (0.25, 0.5, 1.0, 1.5, 2.0)

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        for name in ("batch_tokens", "directions", "max_texts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1.")
        for name in ("skip_first", "ridge"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative.")
        if self.memory_gb <= 0:
            raise ValueError(f"memory_gb={self.memory_gb} must be positive.")
        if self.ranks is not None and (not self.ranks or min(self.ranks) < 1):
            raise ValueError(f"ranks={self.ranks} must be whole numbers of at least 1.")
        if not self.strengths or not all(map(math.isfinite, self.strengths)):
            raise ValueError(f"strengths={self.strengths} must be finite numbers.")


class NothingToMeasureError(ValueError):
    """The subject has what an analysis needs, but in it there is nothing of what it measures."""


@dataclass(frozen=True)
class Finding(ABC):
    """What an analysis found: a frozen dataclass of numbers, which can be drawn and put into words."""

    def to_dict(self) -> dict[str, Any]:
        """Every field as JSON has it: tensors as nested lists, numbers of six digits, what is not finite as None."""
        return {each.name: _plain(getattr(self, each.name)) for each in fields(self)}

    @abstractmethod
    def figure(self) -> Figure:
        """The figure, in the style of `trimtab.figures`.

        Raises:
            ModuleNotFoundError: matplotlib is not installed.
        """

    @property
    @abstractmethod
    def caption(self) -> str:
        """What the figure shows: quantities, units, and where in the paper it comes from."""

    @property
    @abstractmethod
    def summary(self) -> str:
        """What came out, in one to three sentences with numbers."""


Need = Callable[[Subject, AnalysisOptions], str | None]
"""None if a subject has what an analysis needs, else a sentence that says what is missing."""


@dataclass(frozen=True)
class Analysis:
    """An entry of the table of analyses; its name is that of its file.

    Attributes:
        title: of its section on the page.
        measure: the measurement.
        needs: what the subject must have for it.
    """

    title: str
    measure: Callable[[Subject, AnalysisOptions], Finding]
    needs: tuple[Need, ...] = ()

    def missing(self, subject: Subject, options: AnalysisOptions) -> str | None:
        """What keeps it from being measured on `subject`: the first sentence of its needs, or None."""
        return next((reason for need in self.needs if (reason := need(subject, options))), None)


def needs_oracle(subject: Subject, options: AnalysisOptions) -> str | None:
    """Something was trained: an adapter or a fine-tuned model, whose shifts against the base are measured."""
    if subject.has_oracle:
        return None
    return "It compares a trained model with its base: give an adapter, or a fine-tuned model with --tuned."


def needs_adapter(subject: Subject, options: AnalysisOptions) -> str | None:
    """The model carries an adapter of PEFT or trimtab."""
    return None if isinstance(subject.model, PeftModel) else "It measures an adapter: give one."


def needs_joint_adapter(subject: Subject, options: AnalysisOptions) -> str | None:
    """The model carries a joint adapter: steering and LoRA under one name."""
    if isinstance(subject.model, PeftModel) and isinstance(subject.model.active_peft_config, JointConfig):
        return None
    return "It compares the two halves of a joint adapter: give one (methods joint and joint-orth)."


def needs_float32(subject: Subject, options: AnalysisOptions) -> str | None:
    """The stream is in float32: what is left of a small shift in half precision is rounding."""
    for model in (subject.model, subject.tuned):
        if model is not None and torch.finfo(model.dtype).bits < 32:
            return f"Shifts are differences of hidden states: load the model in float32, not {model.dtype}."
    return None


def needs_more_tokens_than_width(subject: Subject, options: AnalysisOptions) -> str | None:
    """n > d in each half of the prompts: with fewer tokens a linear map fits anything (paper, theorem 3.1)."""
    fewest = min(subject.tokens(options.skip_first, half) for half in (0, 1))
    if fewest > subject.width:
        return None
    return (
        f"The model is {subject.width:,} wide, and half of the prompts have {fewest:,} tokens: a linear map would fit "
        "anything. Give more prompts."
    )


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, Tensor):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None  # as many digits as float32 has
    return value
