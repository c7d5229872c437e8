"""How far one model's next-token distributions are from another's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from trimtab.analysis.drift import token_mean
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
        answers_error: the standard error of `answers`, with whole texts as the independent draws: that of a ratio,
            sqrt( k / (k - 1) sum_i (s_i - m n_i)^2 ) / N  for k texts of n_i positions with sums s_i, N positions in
            all and the mean m. It says how another k texts would differ, not another fit. NaN for fewer than two texts.
        everywhere_error: likewise, of `everywhere`.
    """

    answers: float
    everywhere: float
    answer_positions: int
    positions: int
    answers_error: float = math.nan
    everywhere_error: float = math.nan


def divergence(reference: BlockRunner, model: BlockRunner, batches: Sequence[TextBatch]) -> Divergence:
    """The mean of sum_v p(v) (log p(v) - log q(v)), p the reference's and q the model's, both in float32 at least.

    Its error is taken over texts: the positions of one text depend on each other.

    Raises:
        ValueError: no batches.
    """
    if not batches:
        raise ValueError("There is no text to compare the models on.")
    last = len(model.layers) - 1
    total, count = ([] for _ in range(2))
    for batch in batches:
        streams = [runner.run(batch, 0, last) for runner in (reference, model)]
        sums, counts = torch.zeros(2, 2, len(batch.ids), dtype=torch.float64)  # [elsewhere, where answers are], by text
        for answer in (False, True):
            for chosen in chunks(batch.predicts if answer else batch.real & ~batch.predicts):
                logits = [
                    runner.logits(batch, chosen, last + 1, stream)
                    for runner, stream in zip((reference, model), streams, strict=True)
                ]
                rows = chosen.nonzero()[:, 0].cpu()
                found = kl(*logits).cpu().double()
                sums[int(answer)].index_add_(0, rows, found)
                counts[int(answer)].index_add_(0, rows, torch.ones_like(found))
        total.append(sums)
        count.append(counts)
    elsewhere, answers = zip(torch.cat(total, 1), torch.cat(count, 1), strict=True)
    everywhere = elsewhere[0] + answers[0], elsewhere[1] + answers[1]
    means = [_mean(*each) for each in (answers, everywhere)]
    return Divergence(
        answers=means[0][0],
        everywhere=means[1][0],
        answer_positions=int(answers[1].sum()),
        positions=int(everywhere[1].sum()),
        answers_error=means[0][1],
        everywhere_error=means[1][1],
    )


def _mean(sums: Float[Tensor, " texts"], positions: Float[Tensor, " texts"]) -> tuple[float, float]:
    """The mean over the positions of all texts and its standard error over texts; both NaN where there are none."""
    if not positions.any():
        return math.nan, math.nan
    mean, error = token_mean((sums / positions)[None], positions)  # 0 / 0 of a text without positions is left out
    return float(mean), float(error)


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
