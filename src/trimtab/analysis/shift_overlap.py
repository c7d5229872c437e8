"""Do the two halves of a joint adapter push the stream in the same direction? (paper, section 6.5 and appendix G.1)"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor
from torch.nn import functional

from trimtab.analysis.adapter_norms import norms
from trimtab.analysis.base import Analysis, AnalysisOptions, Finding, needs_float32, needs_joint_adapter
from trimtab.analysis.joint_halves import halves, recorded
from trimtab.analysis.layers import median
from trimtab.analysis.stream import batches
from trimtab.analysis.subject import Subject
from trimtab.tuners.steering.hosts import backbone

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ShiftOverlap(Finding):
    """One joint adapter on some prompts.

    Attributes:
        layers: indices of the decoder layers.
        cosine: (layers, prompts): cos(adapter's shift, LoRA's shift of the MLP output), averaged over tokens;
            NaN where one of the two is zero on all of them.
        written_norm: (layers,): ||W_up||_2, the largest singular value of the factor that writes, as it acts.
        free_norm: (layers,): the same of the factor that is trained, before the constraint projects it.
    """

    layers: tuple[int, ...]
    cosine: Float[Tensor, "layers prompts"]
    written_norm: Float[Tensor, " layers"]
    free_norm: Float[Tensor, " layers"]

    def figure(self) -> Figure:
        """Cosines (median, quartiles and range of the prompts) and norms over the layers."""
        from trimtab.figures import MUTED, SERIES, figure, series

        with figure("shift-overlap", 9, 3.4) as drawing:
            cosines, norms = drawing.subplots(1, 2)
            least, low, middle, high, most = torch.nanquantile(
                self.cosine, torch.tensor([0, 0.25, 0.5, 0.75, 1]), dim=1
            )
            for lower, upper, alpha in ((least, most, 0.12), (low, high, 0.25)):
                cosines.fill_between(self.layers, lower, upper, color=SERIES[0], alpha=alpha, linewidth=0)
            cosines.plot(self.layers, middle, **{**series(0), "markersize": 4})
            cosines.axhline(0, color=MUTED, linewidth=0.8)
            cosines.set_ylabel("cosine")
            norms.plot(self.layers, self.written_norm, **{**series(0), "markersize": 4}, label="as it acts")
            norms.plot(self.layers, self.free_norm, **{**series(1), "markersize": 4}, label="before projection")
            norms.set_ylabel("largest singular value of W_up")
            norms.set_ylim(bottom=0)
            norms.legend()
            for axes in (cosines, norms):
                axes.set_xlabel("decoder layer")
                axes.locator_params(axis="x", integer=True)
                axes.grid(axis="y")
        return drawing

    @property
    def caption(self) -> str:
        """What is drawn."""
        return (
            "Cosine of the adapter's shift and of LoRA's shift of the MLP output, mean over the tokens of a prompt: "
            f"median, quartiles and range of {self.cosine.shape[1]} prompts (figure 5, right); and the norm of the "
            "adapter's writing factor (appendix G.1, figure 6)."
        )

    @property
    def summary(self) -> str:
        """The median and the largest cosine, and the range of the norms."""
        low, high = float(self.written_norm.min()), float(self.written_norm.max())
        return (
            f"The median cosine is {float(median(self.cosine)):.3f}, the largest in size "
            f"{float(self.cosine.abs().nan_to_num().max()):.3f}. The norm of W_up is {low:.2g} to {high:.2g}."
        )


@torch.no_grad()
def shift_overlap(
    model: PeftModel,
    prompts: Sequence[Sequence[int]],
    adapter_name: str = "default",
    *,
    layers: Sequence[int] | None = None,
    skip_first: int = 0,
    batch_tokens: int = 2048,
) -> ShiftOverlap:
    """Cosines and norms of a joint adapter whose steering half is low-rank at the site `block`.

    In every decoder layer and at every token, both shifts are taken in the same forward pass of the adapted model:

        adapter:  W_up W_down z                          z the block's output
        LoRA:     MLP'(h) - MLP(h)                       h what the MLP reads, MLP' with LoRA and MLP without

    MLP is the module itself; a norm behind it (Gemma) is not part of the difference. The second shift has also what
    LoRA on the gate and on the up-projection does, which is outside of col(B) of the down-projection: with the
    orthogonality constraint the cosine is small, not zero.

    Args:
        model: a model with a joint adapter.
        prompts: token ids; the language-model head is not run.
        adapter_name: which adapter.
        layers: indices of decoder layers; None: all.
        skip_first: tokens at the start of each prompt that do not count.
        batch_tokens: tokens of a forward pass, padding included.

    Raises:
        ValueError: a decoder layer has no steering of the block, its MLP no LoRA, or the family no module for its
            MLP; the model is not in float32 (a small shift is lost in the rounding of the stream), LoRA is merged, or
            another adapter is active.
    """
    if model.dtype != torch.float32:
        raise ValueError(f"Shifts are differences of hidden states: load the model in float32, not {model.dtype}.")
    if model.active_adapters != [adapter_name]:
        raise ValueError(f"The active adapters are {model.active_adapters}, not {adapter_name!r} alone.")
    indices, mlps, steered = halves(model, adapter_name, layers)
    training = model.training
    model.eval()
    cosines = torch.full((len(steered), len(prompts)), torch.nan)
    try:
        for batch in batches(prompts, batch_tokens=batch_tokens, skip_first=skip_first):
            with recorded(steered, mlps) as shifts:
                ids, mask = batch.ids.to(model.device), batch.mask.to(model.device)
                backbone(model)(input_ids=ids, attention_mask=mask, use_cache=False)
            of_layers = [_mean_cosines(*shifts[index], batch.kept) for index in range(len(steered))]
            cosines[:, list(batch.prompts)] = torch.stack(of_layers)
    finally:
        model.train(training)
    factors = [norms(layer.intervention(adapter_name)) for layer in steered]
    written = torch.tensor([each["W_up"] for each in factors])[:, 0]
    free = torch.tensor([each.get("W_up before projection", each["W_up"]) for each in factors])[:, 0]
    return ShiftOverlap(tuple(indices), cosines, written, free)


def _mean_cosines(adapter: Tensor, lora: Tensor, kept: Tensor) -> Tensor:
    """By row the mean over the tokens that are kept and at which both shifts are not zero; NaN if there are none."""
    if adapter.shape != lora.shape:
        raise ValueError("The MLP of this family is not one module: its output with and without LoRA cannot be taken.")
    counted = (adapter.any(dim=1) & lora.any(dim=1)).view_as(kept) & kept.to(adapter.device)
    cosines = functional.cosine_similarity(adapter, lora, dim=1).view_as(counted)
    return cosines.where(counted, torch.nan).nanmean(1).cpu()


def _measure(subject: Subject, options: AnalysisOptions) -> ShiftOverlap:
    model = cast(PeftModel, subject.model)
    name = model.active_adapters[0]
    chosen: dict[str, Any] = {each: getattr(options, each) for each in ("layers", "skip_first", "batch_tokens")}
    return shift_overlap(model, subject.prompts, name, **chosen)


def _needs_both_halves(subject: Subject, options: AnalysisOptions) -> str | None:
    """Low-rank steering of the block, and LoRA in the MLP, in each of the chosen layers."""
    model = cast(PeftModel, subject.model)
    try:
        halves(model, model.active_adapters[0], options.layers)
    except ValueError as error:
        return str(error)
    return None


ANALYSIS = Analysis(
    title="Do the two halves of a joint adapter push in the same direction?",
    measure=_measure,
    needs=(needs_joint_adapter, needs_float32, _needs_both_halves),
)
