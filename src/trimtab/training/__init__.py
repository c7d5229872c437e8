"""From (model, method, task) to a run directory."""

from trimtab.training.directory import RunDirectory, load_run
from trimtab.training.run import train
from trimtab.training.settings import TrainingSettings

__all__ = ["RunDirectory", "TrainingSettings", "load_run", "train"]
