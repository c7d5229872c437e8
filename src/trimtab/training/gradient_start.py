"""The first examples of a run show an adapter where to look, if it asks for that."""

from __future__ import annotations

from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedModel

from trimtab.training.batch_losses import batch_losses
from trimtab.training.settings import TrainingSettings
from trimtab.tuners.steering import start_from_gradient
from trimtab.tuners.steering.config import FROM_GRADIENT


def point_at_gradient(
    tuned: PreTrainedModel | PeftModel,
    dataset: Dataset,
    settings: TrainingSettings,
    micro_batch: int,
    adapter_name: str = "default",
) -> None:
    """`start_from_gradient` with the losses of the run's first `start_examples` examples, if the adapter asks for it.

    Every process of a distributed run does this alone, on the same examples, `micro_batch` at a time.
    """
    if not isinstance(tuned, PeftModel):
        return
    if getattr(tuned.peft_config[adapter_name], "init_weights", None) == FROM_GRADIENT:
        first = dataset.select(range(min(settings.start_examples, len(dataset))))
        start_from_gradient(tuned, batch_losses(tuned, first, micro_batch, settings.share_prefix), adapter_name)
