"""What the paper measures on real models: one file a measurement, found by its folder (see `trimtab.analysis.base`)."""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache

from trimtab.analysis.base import Analysis, AnalysisOptions, Finding, NothingToMeasureError
from trimtab.analysis.subject import Subject
from trimtab.registry import check_choice, modules_in

__all__ = [
    "Analyses",
    "Analysis",
    "AnalysisOptions",
    "Finding",
    "NothingToMeasureError",
    "Subject",
    "analysis_names",
    "analyze",
    "get_analysis",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Analyses:
    """What was found on one subject.

    Attributes:
        findings: by name of the analysis.
        skipped: for the others, what they would need.
    """

    findings: dict[str, Finding]
    skipped: dict[str, str]


def analysis_names() -> tuple[str, ...]:
    """The names of all analyses, sorted."""
    return tuple(sorted(_table()))


def get_analysis(name: str) -> Analysis:
    """The analysis called `name`; an unknown one raises an error with the nearest."""
    return _table()[check_choice("analysis", name, _table())]


def analyze(subject: Subject, options: AnalysisOptions, only: Collection[str] | None = None) -> Analyses:
    """Run every analysis that applies to a subject.

    Args:
        subject: a model, what was trained on it, and prompts.
        options: their settings.
        only: names of analyses; None: all that apply.

    Raises:
        ValueError: an unknown name, a layer that is not there, or an analysis named in `only` that does not apply;
            all but the last before the first measurement.
    """
    names = analysis_names() if only is None else tuple(dict.fromkeys(only))
    chosen = {name: get_analysis(name) for name in names}
    for layer in options.layers or ():
        if not 0 <= layer < subject.layer_count:
            last = subject.layer_count - 1
            raise ValueError(f"Layer {layer} is not there: the model has {subject.layer_count}, from 0 to {last}.")
    skipped = {name: reason for name, each in chosen.items() if (reason := each.missing(subject, options))}
    if only is not None and skipped:
        raise ValueError(" ".join(f"{name} cannot be measured here. {reason}" for name, reason in skipped.items()))
    findings = {}
    for name, analysis in chosen.items():
        if name not in skipped:
            logger.info("%s ...", name)
            try:
                findings[name] = analysis.measure(subject, options)
            except NothingToMeasureError as error:
                if only is not None:
                    raise
                skipped[name] = str(error)
    return Analyses(findings, skipped)


@cache
def _table() -> dict[str, Analysis]:
    """Each analysis by the name of its file."""
    modules = modules_in(sys.modules[__name__])
    return {module.__name__.rpartition(".")[2]: module.ANALYSIS for module in modules if hasattr(module, "ANALYSIS")}
