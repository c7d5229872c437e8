"""The loss on a data set outside of a Trainer, against the family's own loss example by example."""

from __future__ import annotations

import pytest
import torch

from tiny_language import LastLetter, byte_tokenizer, tiny_model
from trimtab.training.batch_losses import batch_losses, mean_loss, supervised_tokens
from trimtab.training.data import supervised_dataset


@pytest.mark.parametrize("batch_size", [1, 5, 100])
@pytest.mark.parametrize("share_prefix", [False, True])
def test_the_mean_loss_is_that_of_the_examples_one_by_one(batch_size: int, share_prefix: bool) -> None:
    """Every answer token counts alike, whatever the batches; the model stays in its mode, without gradients."""
    model = tiny_model().train()
    dataset = supervised_dataset(LastLetter(count=12).load("train"), byte_tokenizer(), None)
    total, tokens = 0.0, 0
    for row in dataset:
        labels = torch.tensor([row["labels"]])
        count = int((labels != -100).sum())
        with torch.no_grad():
            total += count * float(model(input_ids=torch.tensor([row["input_ids"]]), labels=labels).loss)
        tokens += count
    assert supervised_tokens(dataset) == tokens
    assert mean_loss(model, dataset, batch_size, share_prefix) == pytest.approx(total / tokens, rel=1e-5)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_loss_is_computed_when_it_is_asked_for() -> None:
    """What happens to the model between two batches is seen by the second."""
    model = tiny_model()
    dataset = supervised_dataset(LastLetter(count=4).load("train"), byte_tokenizer(), None)
    losses = batch_losses(model, dataset, 2)
    first = float(next(losses).detach())
    again = list(batch_losses(model, dataset, 2))
    with torch.no_grad():
        model.lm_head.weight.zero_()
    assert first == pytest.approx(float(again[0].detach()))
    assert float(next(losses).detach()) == pytest.approx(
        supervised_tokens(dataset.select([2, 3])) * torch.tensor(258.0).log()
    )
