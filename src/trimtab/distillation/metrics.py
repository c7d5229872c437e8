"""Which errors of the stream matter: metrics of its directions, and weights of its tokens.

An error e of the stream at a token costs w e^T G e, with a weight w of the token and a metric G of the directions,
whose trace is d as the identity's is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trimtab.distillation.divergence import chunks
from trimtab.distillation.settings import DistillationSettings
from trimtab.distillation.streams import BlockRunner
from trimtab.distillation.texts import TextBatch
from trimtab.tuners.steering import prompt_lengths

_VOCABULARY_BLOCK = 8192  # rows of the unembedding that are converted at a time
_LEAST_WEIGHT = 0.05  # of a token, as a share of the mean: what the gradients of a few texts miss is not free


@dataclass(frozen=True)
class ErrorCosts:
    """What errors cost, layer by layer.

    Attributes:
        metrics: G of every layer; None: the identity.
        weights: of every batch, for "gradient": (layers, rows, tokens); None where weights come from the stream.
        relative: whether a token's weight is 1 / mean(h^2).
    """

    metrics: Sequence[Float[Tensor, "d d"]] | None
    weights: Sequence[Float[Tensor, "layers rows tokens"]] | None
    relative: bool

    def of_tokens(self, batch: int, layer: int, h: Float[Tensor, "rows tokens d"]) -> Float[Tensor, "rows tokens"]:
        """The weights of a batch's tokens in front of whose adapter the stream is h; up to a common factor."""
        if self.weights is not None:
            return self.weights[batch][layer]
        if not self.relative:
            return torch.ones_like(h[..., 0])
        wide = h.to(torch.promote_types(h.dtype, torch.float32))
        return wide.square().mean(-1).clamp(min=torch.finfo(torch.float32).tiny).reciprocal()

    def metric(self, layer: int) -> Float[Tensor, "d d"] | None:
        """G of a layer."""
        return None if self.metrics is None else self.metrics[layer]


def error_costs(
    base: BlockRunner, tuned: BlockRunner, batches: Sequence[TextBatch], settings: DistillationSettings
) -> ErrorCosts:
    """What the settings ask for.

    Args:
        base: the base.
        tuned: the tuned model.
        batches: all texts; the metric of every text counts, held out or not, since no shift is read from it.
        settings: `weights`, `metric`, `metric_share`, `seed`.
    """
    count = len(base.layers)
    outer: list[Tensor] = []
    squares: list[Tensor] = []
    if settings.needs_backward:
        outer, squares = gradient_moments(base, tuned, batches, settings.seed)
    metrics = None
    if settings.metric == "gradient":
        metrics = [_mixed(each, settings.metric_share) for each in outer]
    elif settings.metric == "logits":
        metric = logit_metric(base, tuned, batches)
        metrics = [_mixed(metric, settings.metric_share * (layer + 1) / count) for layer in range(count)]
    weights = None
    if settings.weights == "gradient":
        real = torch.cat([batch.real.flatten() for batch in batches])
        flat = torch.cat([each.flatten(1) for each in squares], dim=1)[:, real]
        least = _LEAST_WEIGHT * flat.mean(1).clamp(min=torch.finfo(flat.dtype).tiny)
        weights = [each + least[:, None, None] for each in squares]
    return ErrorCosts(metrics, weights, settings.weights == "relative")


def logit_metric(base: BlockRunner, tuned: BlockRunner, batches: Sequence[TextBatch]) -> Float[Tensor, "d d"]:
    """Fisher information about the stream behind the last layer, from forward passes alone.

        G = D W^T ( diag(p) - p p^T ) W D,    averaged over the positions that predict the answers

    W is the unembedding, p the mean of both models' next-token distributions (the tuned model's own leaves hardly
    anything where it is sure, and the student begins at the base's), and D the diagonal gain of the final norm. Of
    the norm only what goes in and comes out is looked at: D_i is the slope of coordinate i behind it over h_i / rms(h)
    in front of it, which is exact for an RMS norm. What a norm's division by the rms does to an error along the
    stream, and a cap on logits, are left out.

    Raises:
        ValueError: no text has an answer, or the unembedding is not a plain matrix.
    """
    head = base.model.get_output_embeddings()
    unembedding: Tensor = head.weight
    width = int(base.model.config.get_text_config().hidden_size)
    if unembedding.dim() != 2 or unembedding.shape[1] != width or not unembedding.is_floating_point():
        raise ValueError("metric='logits' reads the unembedding as a matrix; this model's is none. Choose another.")
    device = unembedding.device
    mean_p = torch.zeros(len(unembedding), device=device)
    products = torch.zeros(width, width, device=device)
    gain = _Slopes(width, device)
    last = len(base.layers) - 1
    count = 0
    for batch in batches:
        streams = [runner.run(batch, 0, last) for runner in (base, tuned)]
        for chosen in chunks(batch.predicts):
            both = [
                torch.softmax(runner.logits(batch, chosen, last + 1, stream).to(device).float(), -1)
                for runner, stream in zip((base, tuned), streams, strict=True)
            ]
            p = (both[0] + both[1]) / 2
            mean_p += p.sum(0)
            # In float32 whatever the weights are: where p is nearly one word, little is left of the difference below.
            blocks = zip(p.split(_VOCABULARY_BLOCK, 1), unembedding.detach().split(_VOCABULARY_BLOCK), strict=True)
            expected = torch.stack([part @ rows.float() for part, rows in blocks]).sum(0)
            products += expected.T @ expected
            count += len(p)
            h = streams[0][chosen.to(streams[0].device)].to(device).float()
            behind = base.head_input(batch, chosen, streams[0]).to(device).float()
            gain.add(h * h.square().mean(-1, keepdim=True).rsqrt(), behind)
    if not count:
        raise ValueError("metric='logits' is taken where answers are predicted, and no text has an answer.")
    fisher = -products
    for rows, p in zip(unembedding.detach().split(_VOCABULARY_BLOCK), mean_p.split(_VOCABULARY_BLOCK), strict=True):
        fisher += rows.float().T @ (p[:, None] * rows.float())
    return gain.slopes[:, None] * fisher / count * gain.slopes


def gradient_moments(
    base: BlockRunner, tuned: BlockRunner, batches: Sequence[TextBatch], seed: int
) -> tuple[list[Float[Tensor, "d d"]], list[Float[Tensor, "layers rows tokens"]]]:
    """sum g g^T over all tokens, by layer, and |g|^2 of every token: one backward pass of the tuned model.

    g is the gradient, with respect to the stream behind a layer, of sum log p(v) over the positions that predict the
    answer, p the tuned model's distribution and v drawn from the mean of both models'. With v drawn from p alone
    the first would be the Fisher information (that of the generalised Gauss-Newton method); see `logit_metric` for
    why the base has a word in it.

    d x d numbers a layer are kept, in float32.

    Raises:
        ValueError: no text has an answer.
    """
    if not any(bool(batch.predicts.any()) for batch in batches):
        raise ValueError("Gradients are taken where answers are predicted, and no text has an answer.")
    outer: list[Tensor] = []
    squares: list[Tensor] = []
    generator = torch.Generator().manual_seed(seed)
    for batch in batches:
        if not bool(batch.predicts.any()):
            squares.append(torch.zeros(len(base.layers), *batch.ids.shape, device=batch.ids.device))
            continue
        candidates = torch.softmax(base.logits(batch, batch.predicts), -1)
        outputs: list[Tensor] = []
        with torch.enable_grad():
            log_p = _log_probabilities(tuned, batch, outputs)
            mixed = (log_p.detach().exp() + candidates.to(log_p)) / 2
            drawn = torch.multinomial(mixed.float().cpu(), 1, generator=generator).to(log_p.device)
            gradients = torch.autograd.grad(log_p.gather(1, drawn).sum(), outputs)
        wide = [each.to(torch.promote_types(each.dtype, torch.float32)) for each in gradients]
        squares.append(torch.stack([each.square().sum(-1).to(batch.ids.device) for each in wide]))
        products = [each[batch.real.to(each.device)] for each in wide]
        found = [each.T @ each for each in products]
        outer = [one + two for one, two in zip(outer, found, strict=True)] if outer else found
    return outer, squares


class _Slopes:
    """Of each coordinate the slope of the regression line of `after` over `before`, from sums."""

    def __init__(self, width: int, device: torch.device) -> None:
        self._count = 0
        self._sums = torch.zeros(4, width, device=device)

    def add(self, before: Float[Tensor, "n d"], after: Float[Tensor, "n d"]) -> None:
        self._count += len(before)
        self._sums += torch.stack([each.sum(0) for each in (before, after, before.square(), before * after)])

    @property
    def slopes(self) -> Float[Tensor, " d"]:
        before, after, square, product = self._sums / self._count
        variance = (square - before.square()).clamp(min=torch.finfo(square.dtype).tiny)
        return (product - before * after) / variance


def _log_probabilities(tuned: BlockRunner, batch: TextBatch, outputs: list[Tensor]) -> Tensor:
    """log p at the positions that predict the answers; appends the stream behind every layer, with its graph."""

    def begin(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        # The weights may all be frozen: the graph begins at the embeddings.
        if args:
            return (args[0].detach().requires_grad_(), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": kwargs["hidden_states"].detach().requires_grad_()}

    def remember(_: nn.Module, __: Any, output: Any) -> None:
        outputs.append(output if isinstance(output, Tensor) else output[0])

    handles = [tuned.layers[0].register_forward_pre_hook(begin, with_kwargs=True)]
    handles += [layer.register_forward_hook(remember) for layer in tuned.layers]
    try:
        with tuned.head_reads(batch.predicts), prompt_lengths(tuned.model, batch.prompt.sum(1)):
            logits = tuned.model(input_ids=batch.ids, attention_mask=batch.real.long(), use_cache=False).logits[0]
    finally:
        for handle in handles:
            handle.remove()
    return torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), -1)


def _mixed(metric: Tensor, share: float) -> Tensor:
    """(1 - share) I + share G, with G scaled to the trace of the identity."""
    identity = torch.eye(len(metric), dtype=metric.dtype, device=metric.device)
    trace = metric.trace()
    return (1 - share) * identity + (share * len(metric) / trace * metric if trace > 0 else share * identity)
