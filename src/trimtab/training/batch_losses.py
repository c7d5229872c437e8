"""The loss on a data set, batch after batch, outside of a Trainer."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from datasets import Dataset
from peft import PeftModel
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from trimtab.training.loss import IGNORED, CompletionLoss


def batch_losses(
    model: PreTrainedModel | PeftModel, dataset: Dataset, batch_size: int, share_prefix: bool = False
) -> Iterator[Tensor]:
    """`CompletionLoss` of one batch after another: sums over the supervised tokens, in nats.

    Each is computed when it is asked for, in the mode that the model is in then.

    Args:
        model: a base, or one with adapters.
        dataset: "input_ids" and "labels", as `supervised_dataset` makes it.
        batch_size: examples in a batch, in the data set's order.
        share_prefix: as in `CompletionLoss`.
    """
    loss = CompletionLoss(model, share_prefix)
    for first in range(0, len(dataset), batch_size):
        rows = dataset[first : first + batch_size]
        ids = [torch.tensor(row, device=model.device) for row in rows["input_ids"]]
        labels = [torch.tensor(row, device=model.device) for row in rows["labels"]]
        mask = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
        yield loss(pad_sequence(ids, True), mask, pad_sequence(labels, True, IGNORED))


def supervised_tokens(dataset: Dataset) -> int:
    """How many tokens the losses of a data set are summed over: the labels that are not -100."""
    return sum(label != IGNORED for labels in dataset["labels"] for label in labels)


@torch.no_grad()
def mean_loss(
    model: PreTrainedModel | PeftModel, dataset: Dataset, batch_size: int, share_prefix: bool = False
) -> float:
    """The mean of -log p over the supervised tokens of a data set, in nats, in evaluation mode.

    Args:
        model: as in `batch_losses`.
        dataset: as in `batch_losses`.
        batch_size: as in `batch_losses`.
        share_prefix: as in `CompletionLoss`.
    """
    training = model.training
    model.eval()
    try:
        total = sum(float(loss) for loss in batch_losses(model, dataset, batch_size, share_prefix))
    finally:
        model.train(training)
    return total / supervised_tokens(dataset)
