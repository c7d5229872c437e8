"""From (model, method, task) to a run directory."""

from trimtab.training.directory import RunDirectory, load_run
from trimtab.training.grouping import Job, why_not_together
from trimtab.training.run import train
from trimtab.training.settings import TrainingSettings
from trimtab.training.together import train_together

__all__ = ["Job", "RunDirectory", "TrainingSettings", "load_run", "train", "train_together", "why_not_together"]
