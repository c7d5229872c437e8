"""Which runs can be trained together on one base, so that each ends as if it had been trained alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from transformers import PreTrainedModel

from trimtab.interventions import Intervention, get_intervention
from trimtab.methods import Method
from trimtab.methods.configurations import configuration
from trimtab.prefix import draws_numbers
from trimtab.training.settings import TrainingSettings
from trimtab.tuners.steering import SteeringConfig


@dataclass(frozen=True)
class Job:
    """One of several runs that are trained together.

    Attributes:
        method: what is trained.
        settings: batches, length and seed.
        out_dir: the run directory.
    """

    method: Method
    settings: TrainingSettings
    out_dir: Path


def why_not_together(method: Method) -> str | None:
    """Why runs of `method` cannot be trained together with others; None if they can."""
    if method.family != "steering":
        return "only steering adapters leave the weights alone that the runs share"
    config = configuration(method.family, method.adapter)
    if not isinstance(config, SteeringConfig):
        raise TypeError(f"The method {method.label!r} has a {type(config).__name__}, not a SteeringConfig.")
    if config.select_heads is not None:
        return "it selects heads in a stage of its own"
    if config.modules_to_save:
        return "it trains modules of the base"
    intervention = get_intervention(config.intervention)
    if intervention.stochastic:
        return "it draws random numbers in training, and would draw others beside other runs"
    if intervention.penalty is not Intervention.penalty:
        return "it adds a penalty to the loss"
    return None


def common_settings(jobs: Sequence[Job]) -> TrainingSettings:
    """The settings that all jobs share, with the first one's seed.

    Raises:
        ValueError: there is no job, a method cannot be trained together with others, settings other than the seed
            differ, or two jobs have one directory.
    """
    if not jobs:
        raise ValueError("There are no runs to train together.")
    for job in jobs:
        if reason := why_not_together(job.method):
            raise ValueError(f"The method {job.method.label!r} cannot be trained together with others: {reason}.")
    first = jobs[0].settings
    for job in jobs:
        if (other := replace(job.settings, seed=first.seed)) != first:
            ours, theirs = asdict(first), asdict(other)
            named = ", ".join(f"{key} ({ours[key]!r} and {theirs[key]!r})" for key in ours if ours[key] != theirs[key])
            raise ValueError(f"Runs that are trained together may differ in the seed only, not in {named}.")
    directories = [Path(job.out_dir).resolve() for job in jobs]
    for directory in directories:
        if directories.count(directory) > 1:
            raise ValueError(f"Two runs have the directory {directory}.")
    return first


def require_base(base: PreTrainedModel) -> None:
    """Refuse a base whose passes differ from one to the next.

    Raises:
        ValueError: it has dropout.
    """
    if draws_numbers(base):
        raise ValueError(
            "The base has dropout, which would draw other numbers for runs that are trained together than for each "
            "alone. Train them one by one, or turn dropout off in the base's configuration."
        )
