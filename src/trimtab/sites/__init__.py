"""WHERE an intervention acts, by meaning, for every model family.

A site is a tensor of a decoder layer (paper, section 3). One file in this folder defines one site; one file
in `families` describes the anatomy that model types share. Both are found by their folder.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache

from torch import nn

from trimtab.registry import check_choice, modules_in
from trimtab.sites._decoder import Decoder, find_decoder
from trimtab.sites._structure import family_by_structure, missing
from trimtab.sites.base import DecoderLayer, Family, Host
from trimtab.sites.families import known_families

__all__ = ["Family", "Host", "decoder_layers", "family_of", "locate", "site_names", "sites_in"]


def site_names() -> tuple[str, ...]:
    """The sites there are, in alphabetical order."""
    return tuple(sorted(_sites()))


def sites_in(names: str) -> tuple[str, ...]:
    """The sites that are named, joined by "+", as in "block+mlp_input".

    Raises:
        ValueError: an unknown site (with the nearest one), one that is named twice, or something else than a text.
    """
    if not isinstance(names, str):
        raise ValueError(f"site={names!r} must be a text: one site, or several joined by '+', as in 'block+mlp_input'.")
    sites = tuple(names.split("+"))
    for site in sites:
        check_choice("site", site, site_names())
        if sites.count(site) > 1:
            raise ValueError(f"site={names!r} names {site!r} twice.")
    return sites


def locate(model: nn.Module, site: str, layers: Sequence[int] | None = None) -> list[Host]:
    """The modules of `model` whose input or output is the tensor of `site`, ordered by layer.

    Args:
        model: a decoder-only transformers model, bare or with a head, in a PEFT model or another wrapper.
        site: one of `site_names()`.
        layers: indices of decoder layers, from 0, each at most once; None for all.

    Raises:
        ValueError: an unknown site, layers that are not there or named twice, a model of no known anatomy.
    """
    check_choice("site", site, site_names())
    decoder = find_decoder(model)
    wanted = _checked(layers, len(decoder.layers))
    family, anatomy = family_of(model), _layers_of(decoder)
    return [_sites()[site](family, anatomy[index]) for index in wanted]


def decoder_layers(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The dotted name and the list of the decoder layers of the text model in `model`.

    Raises:
        ValueError: `model` is no transformers decoder; no list has num_hidden_layers entries; several do.
    """
    decoder = find_decoder(model)
    return decoder.name, decoder.layers


def family_of(model: nn.Module) -> Family:
    """The anatomy of the model's decoder layers.

    It goes by `model_type` where a family lists it, and by structure where none does. In the second case the
    text model is run once on four tokens, to check that the anatomy explains what its layers compute.

    Raises:
        ValueError: no family fits; the message says which file to add.
    """
    decoder = find_decoder(model)
    layers, config = _layers_of(decoder), decoder.config
    for family in known_families():
        if config.model_type not in family.model_types:
            continue
        reason = missing(family, layers)
        for switch in family.refused:
            if getattr(config, switch, False):
                reason = f"{switch} is on in the config, which by-passes the modules that carry the sites"
        if reason is not None:
            name = type(model).__name__
            raise ValueError(f"{name} is not built like the family {family.name!r}: {reason}.")
        return family
    return family_by_structure(decoder, layers, known_families())


@cache
def _sites() -> dict[str, Callable[[Family, DecoderLayer], Host]]:
    """Each site's name (its file's) and function."""
    modules = modules_in(sys.modules[__name__])
    return {module.__name__.rpartition(".")[2]: module.host for module in modules if hasattr(module, "host")}


def _layers_of(decoder: Decoder) -> list[DecoderLayer]:
    layers = enumerate(decoder.layers)
    return [DecoderLayer(f"{decoder.name}.{i}", module, i, decoder.config) for i, module in layers]


def _checked(layers: Sequence[int] | None, count: int) -> list[int]:
    """The indices in ascending order, each checked against the number of layers."""
    if layers is None:
        return list(range(count))
    if not layers:
        raise ValueError("layers is empty: name at least one decoder layer, or None for all of them.")
    for position, layer in enumerate(layers):
        if isinstance(layer, bool) or not isinstance(layer, int):
            raise ValueError(f"layers must be whole numbers, but one is {layer!r}.")
        if not 0 <= layer < count:
            raise ValueError(f"Layer {layer} is not there: the model has {count}, from 0 to {count - 1}.")
        if layer in layers[:position]:
            raise ValueError(f"Layer {layer} is named twice in layers.")
    return sorted(layers)
