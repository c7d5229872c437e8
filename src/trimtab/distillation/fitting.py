"""Every layer's adapter by regression on the shift that the tuned model makes there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from trimtab.distillation.metrics import ErrorCosts
from trimtab.distillation.settings import RIDGES, DistillationSettings
from trimtab.distillation.streams import BlockRunner, StoredStreams, tokens_of
from trimtab.distillation.texts import TextBatch
from trimtab.interventions import Intervention, get_intervention
from trimtab.interventions.low_rank import LowRank
from trimtab.interventions.vector import Vector
from trimtab.regression import LinearMap, RegressionSums, reduced_rank_ridge, ridge_path
from trimtab.tuners.steering import SteeringConfig


@dataclass(frozen=True)
class FittedLayer:
    """One layer's adapter, and how well it does on the held-out texts; see `DistillationResult.layers`."""

    layer: int
    intervention: Intervention
    ridge: float
    explained: float
    explained_answers: float


class LayerSums:
    """The sums of one layer's regression: to fit on and held out, where answers are predicted and elsewhere."""

    def __init__(self, width: int, device: torch.device, answer_share: float | None) -> None:
        """No samples yet."""
        self._share = answer_share
        self._sums = {
            (held_out, answer): RegressionSums.zeros(width, width, device)
            for held_out in (False, True)
            for answer in (False, True)
        }

    def add(
        self,
        batch: TextBatch,
        held_out: bool,
        read: Float[Tensor, "rows tokens d"],
        shift: Float[Tensor, "rows tokens d"],
        weights: Float[Tensor, "rows tokens"],
        steered: Bool[Tensor, "rows tokens"] | None,
    ) -> None:
        """Add the tokens of a batch that are real and steered.

        Args:
            batch: the texts.
            held_out: whether they are.
            read: x, what the adapter reads.
            shift: what it should add.
            weights: of the tokens.
            steered: which tokens are; None: all.
        """
        chosen = batch.real if steered is None else batch.real & steered
        for answer in (False, True):
            where = (chosen & (batch.predicts == answer)).to(shift.device)
            self._sums[held_out, answer].add(read[where], shift[where], weights.to(shift.device)[where])

    def of(self, held_out: bool) -> RegressionSums:
        """The sums with the answers' share of the weight as it was asked for; in all, the weights sum to 1."""
        parts = [self._sums[held_out, answer] for answer in (False, True)]
        sizes = [float(part.weight) for part in parts]
        if not sum(sizes):
            return parts[0]
        if self._share is None or not all(sizes):
            return parts[0].plus(parts[1]).times(1 / sum(sizes))
        return parts[0].times((1 - self._share) / sizes[0]).plus(parts[1].times(self._share / sizes[1]))

    def of_answers(self) -> RegressionSums:
        """The held-out sums where answers are predicted."""
        return self._sums[True, True]


def solve(
    sums: LayerSums, config: SteeringConfig, ridge: float | None, metric: Float[Tensor, "d d"] | None
) -> tuple[LinearMap, float]:
    """The map and its ridge: the given one, or that of `RIDGES` with the least error on the held-out texts.

    Raises:
        ValueError: no token that is steered has a weight.
    """
    if config.intervention == Vector.name:
        return reduced_rank_ridge(sums.of(False), 0, intercept=True), 0.0
    ridges = RIDGES if ridge is None else (ridge,)
    found = ridge_path(sums.of(False), config.r, ridges, intercept=config.use_bias, metric=metric)
    held_out = sums.of(True)
    errors = [float(held_out.error(each, metric)) for each in found]
    best = errors.index(min(errors))
    return found[best], ridges[best]


def fit_layers(
    base: BlockRunner,
    tuned: BlockRunner,
    batches: Sequence[TextBatch],
    held_out: Sequence[bool],
    config: SteeringConfig,
    settings: DistillationSettings,
    costs: ErrorCosts,
    streams: tuple[StoredStreams, StoredStreams],
    progress: bool = False,
) -> list[FittedLayer]:
    """Fit the layers from the first to the last; `streams` afterwards hold the base's (raw) and tuned model's last.

    At layer l the target at each token is the tuned model's stream behind block l minus h, what the base's block l
    makes of its input; the adapter reads h or h / rms(h). With `sequential` that input is the stream that the fitted
    layers in front have steered, so each layer also makes up for what those could not do.

    Args:
        base: the base.
        tuned: the tuned model.
        batches: the texts.
        held_out: for each batch, whether it is.
        config: the adapter's.
        settings: the fit's.
        costs: of errors.
        streams: where to keep both models' streams.
        progress: draw a progress bar.

    Raises:
        ValueError: no token that is steered has a weight, or the shift is zero in every layer that is steered.
    """
    own, aim = streams
    steered_layers = set(range(len(base.layers)) if config.layers is None else config.layers)
    fitted: list[FittedLayer] = []
    previous: Intervention | None = None
    energy = 0.0
    layers = range(len(base.layers))
    for layer in track(layers, "fitting layers", console=Console(stderr=True), disable=not progress):
        sums: LayerSums | None = None
        for index, batch in enumerate(batches):
            theirs = aim[index] if layer else None
            ours = own[index] if layer else None
            tokens = tokens_of(batch, config.policy)
            if ours is not None and previous is not None and settings.fitting == "sequential":
                ours = steered(previous, ours, tokens)
            if settings.fitting == "tuned_stream":
                ours = theirs
            h, target = base.run(batch, layer, layer, ours), tuned.run(batch, layer, layer, theirs)
            own[index], aim[index] = h, target
            if layer not in steered_layers:
                continue
            if sums is None:
                sums = LayerSums(h.shape[-1], h.device, settings.answer_share)
                reader = fresh(config, h)
            sums.add(
                batch,
                held_out[index],
                reader.reads(h),
                difference(target, h),
                costs.of_tokens(index, layer, h),
                tokens,
            )
        previous = None
        if sums is not None:
            energy += float(sums.of(False).energy())
            solution, ridge = solve(sums, config, settings.ridge, costs.metric(layer))
            previous = with_map(reader, solution)
            fitted.append(_measured(layer, previous, ridge, sums, solution))
    if not energy:  # an adapter of zeros, whose report would be shares of nothing
        raise ValueError(
            "On these texts the tuned model computes what its base computes in every layer that is steered: there is "
            "no shift to fit. Is it the base itself, an adapter that was not trained, or tuned elsewhere (in other "
            "layers, in its head)?"
        )
    return fitted


def _measured(
    layer: int, intervention: Intervention, ridge: float, sums: LayerSums, solution: LinearMap
) -> FittedLayer:
    """The layer with what its map explains of the held-out shifts, by plain squares."""
    everywhere, answers = (_explained(each, solution) for each in (sums.of(True), sums.of_answers()))
    return FittedLayer(layer, intervention, ridge, everywhere, answers)


def fresh(config: SteeringConfig, h: Float[Tensor, "*batch d"]) -> Intervention:
    """A no-op of the configuration's kind for the stream h: on its device, in its dtype but at least in float32."""
    options = replace(config.options, init_weights=True)
    made = get_intervention(config.intervention)(h.shape[-1], options)
    return made.to(h.device, torch.promote_types(h.dtype, torch.float32)).requires_grad_(False).eval()


@torch.no_grad()
def with_map(intervention: Intervention, fitted: LinearMap) -> Intervention:
    """The intervention itself, with the numbers of a map.

    Raises:
        TypeError: it is neither low-rank nor a vector.
    """
    if isinstance(intervention, Vector) and fitted.bias is not None:
        intervention.vector.copy_(fitted.bias)
    elif isinstance(intervention, LowRank):
        intervention.down.copy_(fitted.down)
        intervention.up.copy_(fitted.up)
        if isinstance(intervention.bias, nn.Parameter) and fitted.bias is not None:
            intervention.bias.copy_(fitted.bias)
    else:
        raise TypeError(f"A {type(intervention).__name__} is no linear map.")
    return intervention


def difference(target: Float[Tensor, "*batch d"], h: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
    """target - h in float32 at least, on the device of h."""
    wide = torch.promote_types(h.dtype, torch.float32)
    return target.to(h.device, wide) - h.to(wide)


@torch.no_grad()
def steered(
    intervention: Intervention, h: Float[Tensor, "rows tokens d"], tokens: Bool[Tensor, "rows tokens"] | None
) -> Float[Tensor, "rows tokens d"]:
    """h with the intervention's shift on `tokens`, on the intervention's device."""
    device = next(intervention.parameters()).device
    return intervention.steer(h.to(device), 1.0, None if tokens is None else tokens.to(device))


def _explained(sums: RegressionSums, fitted: LinearMap) -> float:
    energy = float(sums.energy())
    return 1 - float(sums.error(fitted)) / energy if energy > 0 else float("nan")
