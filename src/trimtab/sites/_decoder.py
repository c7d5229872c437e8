"""Finding the decoder layers of a model by structure, whatever is wrapped around them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import PretrainedConfig


@dataclass(frozen=True)
class Decoder:
    """The text decoder in a model.

    Attributes:
        name: dotted name of the list of decoder layers, in the model that was passed in.
        layers: that list.
        owner: the sub-model that runs them, without a language-model or task head.
        config: the text model's config.
    """

    name: str
    layers: nn.ModuleList
    owner: nn.Module
    config: PretrainedConfig


def find_decoder(model: nn.Module) -> Decoder:
    """The text decoder of `model`.

    Its layers are the outermost ModuleList that has `num_hidden_layers` entries with children, in the
    sub-model whose config is the text model's: so neither a vision tower nor the experts of a layer are taken
    for them.

    Raises:
        ValueError: `model` is no transformers decoder; no list fits; several do.
    """
    config = _text_config(model)
    count = getattr(config, "num_hidden_layers", None)
    found: list[Decoder] = []
    for name, module in model.named_modules():
        inside_another = any(name.startswith(f"{outer.name}.") for outer in found)
        if not isinstance(module, nn.ModuleList) or len(module) != count or inside_another:
            continue
        owner = _owner(model, name, config)
        if owner is not None and all(any(True for _ in layer.children()) for layer in module):
            found.append(Decoder(name, module, owner, config))
    if len(found) != 1:
        names = ", ".join(decoder.name for decoder in found)
        seen = f"there are {len(found)}: {names}" if found else "there is none"
        raise ValueError(
            f"Expected one list of {count} decoder layers (num_hidden_layers) in {type(model).__name__} "
            f"(model_type {config.model_type!r}), but {seen}. Name the modules to be steered with "
            "target_modules."
        )
    return found[0]


def _text_config(model: nn.Module) -> PretrainedConfig:
    """The config of the text decoder in `model`.

    `model` may be a wrapper without a config of its own (DistributedDataParallel, a value head): the first
    module inside that has one counts.
    """
    for module in model.modules():
        config = getattr(module, "config", None)
        if isinstance(config, PretrainedConfig):
            break
    else:
        raise ValueError(
            f"{type(model).__name__} is not a transformers model (it has no config), so it has no sites. "
            "Name the modules whose output is to be steered with target_modules."
        )
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(
            f"{type(model).__name__} (model_type {config.model_type!r}) has an encoder and a decoder; sites "
            "are defined for decoder-only models. Name the modules to be steered with target_modules."
        )
    return config.get_text_config()


def _owner(model: nn.Module, name: str, config: PretrainedConfig) -> nn.Module | None:
    """The nearest module above `name` that has a config, if that is the text model's."""
    while name:
        name = name.rpartition(".")[0]
        owner = model.get_submodule(name)
        own = getattr(owner, "config", None)
        if isinstance(own, PretrainedConfig):
            return owner if own.model_type == config.model_type else None
    return None
