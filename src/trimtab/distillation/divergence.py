"""How far one model's next-token distributions are from another's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from trimtab.distillation.streams import BlockRunner
from trimtab.distillation.texts import TextBatch

_POSITIONS = 256  # logits of this many positions exist at a time, of both models


@dataclass(frozen=True)
class Divergence:
    """KL(reference || model) in nats a position.

    Attributes:
        answers: mean over the positions that predict a token of the answer; NaN where there are none.
        everywhere: mean over all positions.
        answer_positions: how many there are.
        positions: likewise.
    """

    answers: float
    everywhere: float
    answer_positions: int
    positions: int


def divergence(reference: BlockRunner, model: BlockRunner, batches: Sequence[TextBatch]) -> Divergence:
    """The mean of sum_v p(v) (log p(v) - log q(v)), p the reference's and q the model's, both in float32 at least.

    Raises:
        ValueError: no batches.
    """
    if not batches:
        raise ValueError("There is no text to compare the models on.")
    last = len(model.layers) - 1
    total = {True: 0.0, False: 0.0}
    count = {True: 0, False: 0}
    for batch in batches:
        streams = [runner.run(batch, 0, last) for runner in (reference, model)]
        for answer in (True, False):
            for chosen in chunks(batch.predicts if answer else batch.real & ~batch.predicts):
                logits = [
                    runner.logits(batch, chosen, last + 1, stream)
                    for runner, stream in zip((reference, model), streams, strict=True)
                ]
                total[answer] += float(kl(*logits).sum())
                count[answer] += int(chosen.sum())
    answers, everything = count[True], sum(count.values())
    mean = total[True] / answers if answers else float("nan")
    return Divergence(mean, sum(total.values()) / everything, answers, everything)


def kl(reference: Float[Tensor, "n vocabulary"], logits: Float[Tensor, "n vocabulary"]) -> Float[Tensor, " n"]:
    """KL(p || q) of each row, from logits; words that p rules out (a logit of -inf) do not count."""
    log_p = torch.log_softmax(reference, dim=-1)
    log_q = torch.log_softmax(logits.to(log_p), dim=-1)
    p = log_p.exp()
    return torch.where(p > 0, p * (log_p - log_q), 0).sum(-1)


def chunks(positions: Bool[Tensor, "rows tokens"]) -> Iterator[Bool[Tensor, "rows tokens"]]:
    """The positions in parts of at most 256."""
    for part in positions.nonzero().split(_POSITIONS):
        chosen = torch.zeros_like(positions)
        chosen[part[:, 0], part[:, 1]] = True
        if len(part):
            yield chosen
