"""A second look at every layer: what is left at the end of the model, handed to the layers one by one.

The first fit matches the tuned model's stream behind each block. What no layer could match is still there behind the
last one, at the positions that predict the answer: e = z_tuned - z_distilled. A shift of the stream in an earlier layer
travels along the skip-connections, so to a first approximation it arrives there as it was made; layer l is therefore
fitted again, with all others held fixed, to

    its present shift + step * e        where the answer is predicted
    the tuned model's shift             elsewhere, as in the first fit

Layers are taken in order, each on the stream as the ones in front now leave it (a Gauss-Seidel sweep). Since the
approximation may be bad, a layer's new map is kept only if it lowers the divergence on the held-out texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from rich.console import Console
from rich.progress import track

from trimtab.distillation.divergence import chunks, kl
from trimtab.distillation.fitting import FittedLayer, LayerSums, difference, fresh, solve, steered, with_map
from trimtab.distillation.metrics import ErrorCosts
from trimtab.distillation.settings import DistillationSettings
from trimtab.distillation.streams import BlockRunner, Steering, StoredStreams, tokens_of
from trimtab.distillation.texts import TextBatch
from trimtab.tuners.steering import SteeringConfig


def refine_layers(
    base: BlockRunner,
    tuned: BlockRunner,
    batches: Sequence[TextBatch],
    held_out: Sequence[bool],
    config: SteeringConfig,
    settings: DistillationSettings,
    costs: ErrorCosts,
    fitted: Sequence[FittedLayer],
    streams: tuple[StoredStreams, StoredStreams],
    final: StoredStreams,
    progress: bool = False,
) -> tuple[list[FittedLayer], int]:
    """One sweep over the layers: the layers afterwards, and how many of them were changed.

    Every layer costs a pass through the layers behind it, so a sweep takes as long as half as many passes through the
    model as it has layers.

    Args:
        base: the base.
        tuned: the tuned model.
        batches: the texts.
        held_out: for each batch, whether it is.
        config: the adapter's.
        settings: the fit's.
        costs: of errors; the metric is not used where e is fitted, behind the last layer it is another one.
        fitted: the layers so far.
        streams: where to keep both models' streams.
        final: the tuned model's streams behind the last layer.
        progress: draw a progress bar.

    Raises:
        ValueError: no held-out text has an answer, so there is nothing to judge a refinement by.
    """
    if not any(bool(batch.predicts.any()) for batch, out in zip(batches, held_out, strict=True) if out):
        raise ValueError("A refinement is judged where held-out answers are predicted, and no held-out text has one.")
    own, aim = streams
    last = len(base.layers) - 1
    by_layer = {each.layer: each for each in fitted}
    judge = _Judge(base, tuned, batches, held_out, final, config)
    lowest = judge.divergence(_steering(by_layer), 0, None)
    changed = 0
    for layer in track(range(last + 1), "refining layers", console=Console(stderr=True), disable=not progress):
        present = by_layer.get(layer)
        before = by_layer.get(layer - 1)
        sums: LayerSums | None = None
        for index, batch in enumerate(batches):
            tokens = tokens_of(batch, config.policy)
            ours, theirs = (own[index], aim[index]) if layer else (None, None)
            if ours is not None and before is not None:
                ours = steered(before.intervention, ours, tokens)
            h, target = base.run(batch, layer, layer, ours), tuned.run(batch, layer, layer, theirs)
            own[index], aim[index] = h, target
            if present is None:
                continue
            shifted = steered(present.intervention, h, tokens)
            end = shifted
            if layer < last:
                end = base.run(batch, layer + 1, last, shifted, _steering(by_layer))
                if last in by_layer:
                    end = steered(by_layer[last].intervention, end, tokens)
            aimed = difference(shifted, h) + settings.step * difference(final[index], end).to(h.device)
            wanted = torch.where(batch.predicts[..., None].to(h.device), aimed, difference(target, h))
            if sums is None:
                sums = LayerSums(h.shape[-1], h.device, settings.answer_share)
            read = present.intervention.reads(h)
            sums.add(batch, held_out[index], read, wanted, costs.of_tokens(index, layer, h), tokens)
        if present is None or sums is None:
            continue
        solution, ridge = solve(sums, config, settings.ridge, costs.metric(layer))
        candidate = replace(present, intervention=with_map(fresh(config, h), solution), ridge=ridge)
        trial = {**by_layer, layer: candidate}
        found = judge.divergence(_steering(trial), layer + 1, own, candidate)
        if found < lowest:
            lowest, by_layer, changed = found, trial, changed + 1
    return [by_layer[layer] for layer in sorted(by_layer)], changed


class _Judge:
    """The mean divergence from the tuned model where held-out answers are predicted."""

    def __init__(
        self,
        base: BlockRunner,
        tuned: BlockRunner,
        batches: Sequence[TextBatch],
        held_out: Sequence[bool],
        final: StoredStreams,
        config: SteeringConfig,
    ) -> None:
        self._base, self._tuned, self._final, self._policy = base, tuned, final, config.policy
        self._batches = [(index, batch) for index, batch in enumerate(batches) if held_out[index]]

    def divergence(
        self,
        steering: Steering,
        first: int,
        streams: StoredStreams | None,
        in_front: FittedLayer | None = None,
    ) -> float:
        """With `steering`, from layer `first` on, whose input is `streams` steered by `in_front`."""
        last = len(self._base.layers) - 1
        total, count = 0.0, 0
        for index, batch in self._batches:
            tokens = tokens_of(batch, self._policy)
            ours = None
            if streams is not None and in_front is not None:
                ours = steered(in_front.intervention, streams[index], tokens)
            if first <= last:
                ours = self._base.run(batch, first, last, ours, steering)
                if last in steering:
                    ours = steered(steering[last], ours, tokens)
            theirs = self._final[index]
            for chosen in chunks(batch.predicts):
                reference = self._tuned.logits(batch, chosen, last + 1, theirs)
                found = self._base.logits(batch, chosen, last + 1, ours)
                total += float(kl(reference, found.to(reference.device)).sum())
                count += int(chosen.sum())
        return total / count


def _steering(fitted: dict[int, FittedLayer]) -> Steering:
    return {layer: each.intervention for layer, each in fitted.items()}
