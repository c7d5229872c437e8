"""The words in which sites are described: a host, a family of models, one decoder layer of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn
from transformers import PretrainedConfig


@dataclass(frozen=True)
class Host:
    """A module whose input or output IS the tensor of a site.

    A module's output may be a tuple (attention returns its weights too); the tensor is then its first entry. What a
    module reads may come as its first argument or as the keyword `hidden_states`.
    The tensor is (batch, tokens, width), or (batch * tokens, width) where a family flattens it (OPT's MLP).

    Where a family applies dropout between the sub-layer and the stream, the tensor is the one before it, so
    that in training a shift is dropped out like what it shifts. In evaluation the two are the same.

    Attributes:
        module: full dotted name in the model that was passed in, such as "model.layers.3.mlp".
        side: whether the tensor is the first argument of the module or what it returns.
        width: last dimension of the tensor.
        multiplier: the stream receives `multiplier * tensor` (Granite's residual_multiplier).
        layer: index of the decoder layer, from 0.
        heads: how many attention heads' outputs the tensor consists of, side by side; None at other sites, and
            where the model does not say.
    """

    module: str
    side: Literal["input", "output"]
    width: int
    multiplier: float = 1.0
    layer: int = 0
    heads: int | None = None


@dataclass(frozen=True)
class Family:
    """The anatomy of a decoder layer: where the tensors of the sites are, by names inside the layer.

    Attributes:
        name: as in the file's name.
        model_types: `config.model_type` of the text models that are known, by test, to be built like this.
        attention: the module whose output is what attention adds to the stream (the norm behind it, if any).
        mlp: the module whose output is what the MLP adds to the stream (likewise).
        attention_input: the module whose first argument is what attention reads.
        mlp_input: the module whose first argument is what the MLP reads.
        heads: the output projection of attention; its argument is the concatenation of the heads' outputs.
        norms: children of the layer that normalise what a sub-layer reads. A layer with any other child that
            has parameters is not of this anatomy.
        multiplier: entry of the config by which sub-layer outputs are multiplied as they are added to the
            stream.
        refused: switches of the config under which the modules named here are by-passed.
    """

    name: str
    model_types: tuple[str, ...]
    attention: str
    mlp: str
    attention_input: str
    mlp_input: str
    heads: str
    norms: tuple[str, ...]
    multiplier: str | None = None
    refused: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """The modules that carry sites, each once."""
        return tuple(dict.fromkeys((self.attention, self.mlp, self.attention_input, self.mlp_input, self.heads)))

    def multiplier_in(self, config: PretrainedConfig) -> float:
        """The factor on what a sub-layer adds to the stream, in a model with this config."""
        return 1.0 if self.multiplier is None else float(getattr(config, self.multiplier))


@dataclass(frozen=True)
class DecoderLayer:
    """One decoder layer: its dotted name in the model, the module, its index, and the text model's config."""

    name: str
    module: nn.Module
    index: int
    config: PretrainedConfig

    @property
    def stream_width(self) -> int:
        """The width d of the residual stream."""
        return int(self.config.hidden_size)

    @property
    def inner(self) -> nn.Module:
        """The layer itself, without wrappers that PEFT may have put around it."""
        module = self.module
        while "base_layer" in (children := dict(module.named_children())):
            module = children["base_layer"]
        return module

    def find(self, path: str) -> tuple[str, nn.Module]:
        """The dotted name in the model, and the module, of a descendant of this layer.

        A wrapper that PEFT has put around a module (one with a `base_layer`) is what is found, and is looked
        through on the way to the children of the module inside.

        Raises:
            LookupError: there is no such descendant; the message says which one is missing where.
        """
        name, module = self.name, self.module
        for part in path.split("."):
            children = dict(module.named_children())
            while part not in children and "base_layer" in children:
                name, module = f"{name}.base_layer", children["base_layer"]
                children = dict(module.named_children())
            if part not in children:
                raise LookupError(f"{name!r} ({type(module).__name__}) has no child {part!r}")
            name, module = f"{name}.{part}", children[part]
        return name, module
