"""What a checkpoint of transformers leaves out: the wall time so far, and the losses since a line was last logged."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from trimtab.files import write_text

if TYPE_CHECKING:
    from trimtab.training.trainer import CompletionTrainer

_FILE = "carried.json"


@dataclass(frozen=True)
class Carried:
    """What a resumed run begins with; of a fresh one all is zero.

    Attributes:
        seconds: wall time of the processes before, up to the checkpoint.
        loss: sum of the losses of the steps that no line of metrics.jsonl tells of yet, in nats a supervised token.
        steps: how many steps these are.
    """

    seconds: float = 0.0
    loss: float = 0.0
    steps: int = 0

    def save(self, checkpoint: Path) -> None:
        """Write it into a checkpoint."""
        write_text(checkpoint / _FILE, json.dumps(asdict(self)))

    @classmethod
    def load(cls, checkpoint: Path) -> Carried:
        """What `save` wrote; nothing, if an earlier version made the checkpoint."""
        path = checkpoint / _FILE
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else cls()


class GoOn(TrainerCallback):
    """Gives the Trainer back the losses that are not logged yet: it begins to sum anew in every process."""

    def __init__(self, trainer: CompletionTrainer) -> None:
        """For `trainer`, whose checkpoint is read before training begins."""
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The next line is the mean over the whole interval, as in a run that was not interrupted."""
        self._trainer._tr_loss += self._trainer.carried.loss
        self._trainer._globalstep_last_logged -= self._trainer.carried.steps
