"""Running single decoder layers of a model on streams that are handed to it, and keeping streams in files.

A layer is run by the model itself, which makes its masks, positions and whatever else the family hands to a layer: the
other layers are replaced by ones that pass the stream on, and the one in front by one that hands over the given stream.
So the layers are fitted one after another at the cost of one pass through the model, not of one pass each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trimtab.distillation.texts import TextBatch
from trimtab.interventions import Intervention
from trimtab.models import AnyModel
from trimtab.positions import PositionPolicy
from trimtab.sites import decoder_layers
from trimtab.tuners.steering import prompt_lengths
from trimtab.tuners.steering.hosts import backbone

Steering = Mapping[int, Intervention]
"""What steers the outputs of the layers, by index; layers without one are not steered."""


class BlockRunner:
    """The decoder layers of a model, to be run a few at a time. The model is put into evaluation mode."""

    def __init__(self, model: AnyModel, policy: PositionPolicy | None = None) -> None:
        """Look at `model`: it runs once on two tokens.

        Args:
            model: a causal language model, with or without adapters.
            policy: the positions that `steering` acts on; None: all.
        """
        self.model = model.eval()
        self._backbone = backbone(model)
        _, self.layers = decoder_layers(model)
        self._policy = policy
        # Some families' layers return a tuple that begins with the stream, and their models index it.
        self._in_tuple: list[bool] = []
        handles = [
            layer.register_forward_hook(lambda _, __, output: self._in_tuple.append(not isinstance(output, Tensor)))
            for layer in self.layers
        ]
        try:
            ids = torch.tensor([[0, 1]], device=model.device)
            with torch.no_grad(), prompt_lengths(model, [2]):
                self._backbone(input_ids=ids, use_cache=False)
        finally:
            for handle in handles:
                handle.remove()

    def run(
        self,
        batch: TextBatch,
        first: int,
        last: int,
        stream: Float[Tensor, "rows tokens d"] | None = None,
        steering: Steering | None = None,
    ) -> Float[Tensor, "rows tokens d"]:
        """The output of layer `last`, before `steering` acts on it.

        Args:
            batch: the texts.
            first: the first layer that is run.
            last: the last.
            stream: what layer `first` reads; None, for the first layer of the model: the embeddings.
            steering: what is added to the outputs of the layers.
        """
        captured: dict[int, Tensor] = {}
        with torch.no_grad(), self._only(batch, first, last, stream, steering or {}, captured):
            self._call(self._backbone, batch)
        return captured[last]

    def logits(
        self,
        batch: TextBatch,
        positions: Bool[Tensor, "rows tokens"],
        first: int = 0,
        stream: Float[Tensor, "rows tokens d"] | None = None,
        steering: Steering | None = None,
    ) -> Float[Tensor, "positions vocabulary"]:
        """The model's logits at `positions`, in float32 at least; arguments as in `run`, up to the last layer.

        With `first` = number of layers only the final norm and the head are run, on `stream`.
        """
        with (
            torch.no_grad(),
            self._only(batch, first, len(self.layers) - 1, stream, steering or {}, {}),
            self.head_reads(positions),
        ):
            logits: Tensor = self._call(self.model, batch).logits[0]
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def head_input(
        self, batch: TextBatch, positions: Bool[Tensor, "rows tokens"], stream: Float[Tensor, "rows tokens d"]
    ) -> Float[Tensor, "positions d"]:
        """What the head reads at `positions` when `stream` leaves the last layer: the output of the final norm."""
        seen: list[Tensor] = []
        count = len(self.layers)
        with (
            torch.no_grad(),
            self._only(batch, count, count - 1, stream, {}, {}),
            self.head_reads(positions, seen),
        ):
            self._call(self.model, batch)
        return seen[0]

    @contextmanager
    def head_reads(self, positions: Bool[Tensor, "rows tokens"], seen: list[Tensor] | None = None) -> Iterator[None]:
        """Within `with`, the head reads `positions` only, as one row; they are appended to `seen`."""

        def select(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            selected = inputs[0][positions.to(inputs[0].device)]
            if seen is not None:
                seen.append(selected)
            return (selected[None], *inputs[1:])

        handle = self.model.get_output_embeddings().register_forward_pre_hook(select)
        try:
            yield
        finally:
            handle.remove()

    def _call(self, module: nn.Module, batch: TextBatch) -> Any:
        device = self.model.device  # the two models may be on different ones
        with prompt_lengths(self.model, batch.prompt.sum(1)):
            return module(input_ids=batch.ids.to(device), attention_mask=batch.real.long().to(device), use_cache=False)

    @contextmanager
    def _only(
        self,
        batch: TextBatch,
        first: int,
        last: int,
        stream: Tensor | None,
        steering: Steering,
        captured: dict[int, Tensor],
    ) -> Iterator[None]:
        """Within `with`, only layers `first` to `last` do anything; outputs are captured before they are steered."""
        tokens = tokens_of(batch, self._policy)
        handles = []

        def leave(index: int, output: Any) -> Any:
            h: Tensor = output if isinstance(output, Tensor) else output[0]
            captured[index] = h
            if index not in steering:
                return output
            h = steering[index].steer(h, 1.0, None if tokens is None else tokens.to(h.device))
            return h if isinstance(output, Tensor) else (h, *output[1:])

        layers = list(self.layers)
        try:
            for index, layer in enumerate(layers):
                if first <= index <= last:
                    # Behind the hooks that are there: what the model's own adapters do is part of its stream.
                    handles.append(layer.register_forward_hook(lambda _, __, output, i=index: leave(i, output)))
                else:
                    handed = stream if index == first - 1 else None
                    self.layers[index] = _PassOn(layer, self._in_tuple[index], handed)
            yield
        finally:
            for handle in handles:
                handle.remove()
            for index, layer in enumerate(layers):
                self.layers[index] = layer


class _PassOn(nn.Module):
    """In the place of a decoder layer: returns the stream as it came, or the one that is handed over."""

    def __init__(self, layer: nn.Module, in_tuple: bool, stream: Tensor | None) -> None:
        super().__init__()
        # Not registered: the layer stays where it belongs. Models read attributes of their layers (their attention's
        # type).
        object.__setattr__(self, "_layer", layer)
        self._in_tuple = in_tuple
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_layer"], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The stream."""
        h: Tensor = args[0] if args else kwargs["hidden_states"]
        if self._stream is not None:
            h = self._stream.to(h.device)
        return (h,) if self._in_tuple else h


class StoredStreams:
    """One stream a batch, in files: memory does not grow with the number of prompts."""

    def __init__(self, directory: Path) -> None:
        """Nothing is stored yet; `directory` is made."""
        self._directory = directory
        directory.mkdir()

    def __setitem__(self, batch: int, stream: Float[Tensor, "rows tokens d"]) -> None:
        """Keep the stream of a batch in place of the one before."""
        path = self._directory / f"{batch}.safetensors"
        temporary = path.with_suffix(".new")  # the old one may still be mapped into memory
        save_file({"stream": stream.detach().cpu().contiguous()}, temporary)
        temporary.replace(path)

    def __getitem__(self, batch: int) -> Float[Tensor, "rows tokens d"]:
        """The stream of a batch, on the CPU."""
        return load_file(self._directory / f"{batch}.safetensors")["stream"]


def tokens_of(batch: TextBatch, policy: PositionPolicy | None) -> Bool[Tensor, "rows tokens"] | None:
    """The tokens that a policy steers in a batch; None is all of them, padding included."""
    return None if policy is None or policy.everything else policy.select(batch.real, batch.prompt)
