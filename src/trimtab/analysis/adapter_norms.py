"""How large a steering adapter is: norms of its factors, and its shift beside the stream (appendix G.1, figure 6)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn

from trimtab.analysis.base import Analysis, AnalysisOptions, Finding
from trimtab.analysis.layers import median
from trimtab.analysis.stream import Batch, batches, hidden_states
from trimtab.analysis.subject import Subject
from trimtab.interventions import Intervention
from trimtab.sites import decoder_layers
from trimtab.tuners.steering.layer import SteeringLayer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PRODUCT = "W_up W_down"
_WIDE = 30
"""How many times the smallest norm the largest is where an axis is logarithmic."""
_LABELS = {"up": "W_up", "down": "W_down", "projection": "W_up", "source_weight": "W_down"}
"""What the formulas call a parameter; others keep their names."""


@dataclass(frozen=True)
class AdapterNorms(Finding):
    """The norms of one steering adapter.

    Attributes:
        modules: the steered modules, by name, in the model's order.
        layers: the decoder layer of each; -1 outside of the decoder.
        strength: s, which is in `relative` and not in the norms.
        spectral: by factor, (modules,): the largest singular value; of a vector its length. NaN where a module has no
            such factor. "W_up W_down" is the linear map itself (what reads h / rms(h) is a map of that).
            "W_up before projection" is the trained factor of a constrained adapter (figure 6).
        frobenius: likewise, the root of the sum of squares.
        relative: (modules, prompts): ||s shift(h)|| / ||h||, the mean over the tokens of a prompt. A token that is not
            steered counts with 0.
    """

    modules: tuple[str, ...]
    layers: tuple[int, ...]
    strength: float
    spectral: dict[str, Float[Tensor, " modules"]]
    frobenius: dict[str, Float[Tensor, " modules"]]
    relative: Float[Tensor, "modules prompts"]

    def figure(self) -> Figure:
        """Spectral norms, Frobenius norms, and the shift beside the stream, over the layers."""
        from trimtab.figures import figure

        with figure("adapter-norms", 10, 3.4) as drawing:
            spectral, frobenius, relative = drawing.subplots(1, 3)
            self._norms(spectral, self.spectral, "spectral norm")
            self._norms(frobenius, self.frobenius, "Frobenius norm")
            self._relative(relative)
            handles, labels = spectral.get_legend_handles_labels()
            drawing.legend(handles, labels, loc="outside upper center", ncols=len(labels))
        return drawing

    @property
    def _places(self) -> tuple[int, ...]:
        """Where each module stands on the axis: at its layer, or, where that does not tell modules apart, in order."""
        return self.layers if len(set(self.layers)) == len(self.layers) else tuple(range(len(self.layers)))

    def _norms(self, axes: Axes, norms: dict[str, Tensor], label: str) -> None:
        from trimtab.figures import series

        for index, (name, values) in enumerate(norms.items()):
            axes.plot(self._places, values, **{**series(index), "markersize": 4}, label=name)
        known = torch.cat([values[values > 0] for values in norms.values()])
        if len(known) and known.max() > _WIDE * known.min():
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        self._axis(axes, label)

    def _relative(self, axes: Axes) -> None:
        from trimtab.figures import SERIES, series

        low, middle, high = 100 * torch.nanquantile(self.relative, torch.tensor([0.25, 0.5, 0.75]), dim=1)
        axes.fill_between(self._places, low, high, color=SERIES[0], alpha=0.2, linewidth=0)
        axes.plot(self._places, middle, **{**series(0), "markersize": 4})
        axes.set_ylim(bottom=0)
        self._axis(axes, "shift, % of the steered tensor")

    def _axis(self, axes: Axes, label: str) -> None:
        axes.set_ylabel(label)
        axes.set_xlabel("decoder layer" if self._places == self.layers else "steered module")
        axes.locator_params(axis="x", integer=True)
        axes.grid(axis="y")

    @property
    def caption(self) -> str:
        """What is drawn."""
        return (
            "Norms of the adapter's factors (appendix G.1, figure 6, has the spectral norm of W_up), and the length of "
            f"its shift at strength {self.strength:g} as a share of the hidden state that it is added to: mean over "
            f"the tokens of a prompt, median and quartiles over {self.relative.shape[1]} prompts."
        )

    @property
    def summary(self) -> str:
        """The range of each norm, and of the relative size, over the modules."""
        ranges = [
            f"{name} {float(values.nan_to_num(torch.inf).min()):.2g} to {float(values.nan_to_num(-1).max()):.2g}"
            for name, values in self.spectral.items()
        ]
        middle = 100 * median(self.relative, dim=1)
        largest = int(middle.argmax())
        return (
            f"Spectral norms over {len(self.modules)} modules: {', '.join(ranges)}. The shift is "
            f"{float(middle.min()):.2g} to {float(middle[largest]):.2g} % of what it is added to, "
            f"the most in {self.modules[largest]}."
        )


def adapter_norms(subject: Subject, options: AnalysisOptions) -> AdapterNorms:
    """Norms of the active steering adapter of `subject`, in float32 whatever the dtype of the model.

    Raises:
        ValueError: not one steering adapter is active.
    """
    if reason := needs_steering(subject, options):
        raise ValueError(reason)
    found = _steered(subject.model, options)
    name = next(iter(_active(subject)))
    factors = [norms(layer.intervention(name)) for _, _, layer in found]
    by_name = {
        factor: [each.get(factor, (torch.nan, torch.nan)) for each in factors]
        for factor in dict.fromkeys(factor for each in factors for factor in each)
    }
    modules, layers, steering = zip(*found, strict=True)
    return AdapterNorms(
        modules=modules,
        layers=layers,
        strength=steering[0].strengths[name],
        spectral={factor: torch.tensor(pairs)[:, 0] for factor, pairs in by_name.items()},
        frobenius={factor: torch.tensor(pairs)[:, 1] for factor, pairs in by_name.items()},
        relative=_relative_sizes(subject, options, steering),
    )


def norms(intervention: Intervention) -> dict[str, tuple[float, float]]:
    """The spectral and the Frobenius norm of every factor as it acts, of a constrained one before the projection too.

    The product of a factor that writes and one that reads is not formed: its singular values are those of R_1 R_2^T,
    where W_up = Q_1 R_1 and W_down^T = Q_2 R_2.
    """
    own = [name for name, _ in intervention.named_parameters(recurse=False)]
    names = dict.fromkeys((*intervention.written, *intervention.read, *own))
    factors = {name: _wide(value) for name in names if (value := getattr(intervention, name)) is not None}
    found = {_LABELS.get(name, name): _norms(value) for name, value in factors.items()}
    parametrizations: Any = getattr(intervention, "parametrizations", {})
    for name, each in parametrizations.items():
        found[f"{_LABELS.get(name, name)} before projection"] = _norms(_wide(each.original))
    up, down = (
        [factors[name] for name in names if name in factors and factors[name].dim() == 2]
        for names in (intervention.written, intervention.read)
    )
    if len(up) == len(down) == 1:
        left, right = (torch.linalg.qr(factor).R for factor in (up[0], down[0].mT))
        found[PRODUCT] = _norms(left @ right.mT)
    return found


def _norms(factor: Tensor) -> tuple[float, float]:
    frobenius = float(torch.linalg.vector_norm(factor))
    return (float(torch.linalg.matrix_norm(factor, ord=2)) if factor.dim() == 2 else frobenius), frobenius


def _wide(factor: Tensor) -> Tensor:
    return factor.detach().to(torch.promote_types(factor.dtype, torch.float32))


def _relative_sizes(subject: Subject, options: AnalysisOptions, layers: tuple[SteeringLayer, ...]) -> Tensor:
    """(modules, prompts): the mean of ||s shift(h)|| / ||h|| over the tokens of each prompt; NaN where none is left."""
    sizes = torch.full((len(layers), len(subject.prompts)), torch.nan)
    given = {"batch_tokens": options.batch_tokens, "skip_first": options.skip_first}
    # With a fine-tuned copy the oracle is that one: here it is the adapter that is looked at.
    with replace(subject, tuned=None).as_tuned() as model:
        for batch in batches(subject.prompts, **given):
            with _sizes_of(batch, layers, sizes):
                hidden_states(model, batch, {})
    return sizes


@contextmanager
def _sizes_of(batch: Batch, layers: tuple[SteeringLayer, ...], sizes: Tensor) -> Iterator[None]:
    """Within the `with` block, a forward pass of the batch puts the prompts' relative sizes into `sizes`."""

    def note(index: int, _: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        h = args[0].detach()
        h = h.to(torch.promote_types(h.dtype, torch.float32))
        # Once more in float32: what bfloat16 leaves of a small shift is its rounding.
        shift = layers[index].forward(h) - h
        lengths = [torch.linalg.vector_norm(each, dim=-1).reshape(batch.mask.shape).cpu() for each in (shift, h)]
        share = torch.where(batch.kept, lengths[0] / lengths[1], 0).sum(1) / batch.kept.sum(1)
        sizes[index, list(batch.prompts)] = share.to(sizes.dtype)

    handles = [layer.register_forward_hook(partial(note, index)) for index, layer in enumerate(layers)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _steered(model: nn.Module, options: AnalysisOptions) -> list[tuple[str, int, SteeringLayer]]:
    """The steered modules: name without wrappers, decoder layer (-1: none), and what steers them."""
    prefix, _ = decoder_layers(model)
    found = []
    for name, layer in model.named_modules():
        if isinstance(layer, SteeringLayer):
            host = name.rpartition(".")[0]
            inside = f"{host}.".startswith(f"{prefix}.")
            index = int(host.removeprefix(f"{prefix}.").partition(".")[0]) if inside else -1
            if options.layers is None or index in options.layers:
                found.append((host.removeprefix("base_model.model."), index, layer))
    return found


def _active(subject: Subject) -> set[str]:
    layers = [module for module in subject.model.modules() if isinstance(module, SteeringLayer)]
    return {name for each in layers for name in each.active_adapters if name in each.steering_interventions}


def needs_steering(subject: Subject, options: AnalysisOptions) -> str | None:
    """One steering adapter, or the steering half of a joint one, is active."""
    active = _active(subject) if isinstance(subject.model, PeftModel) else set()
    if len(active) == 1:
        return None if _steered(subject.model, options) else "The adapter steers none of the chosen layers."
    if active:
        return f"It measures one steering adapter, and {', '.join(sorted(active))} are active."
    return "It measures a steering adapter: give one."


ANALYSIS = Analysis(title="Norms of the adapter", measure=adapter_norms, needs=(needs_steering,))
