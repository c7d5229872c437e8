"""What the MLP adds to the stream (post-MLP): G in z = u + G, with G in R^d (paper, section 3).

Where the family normalises between the MLP and the skip-connection, G is what leaves that norm. A mixture of
experts is one MLP: G is the sum over its experts.
"""

from __future__ import annotations

from trimtab.sites.base import DecoderLayer, Family, Host


def host(family: Family, layer: DecoderLayer) -> Host:
    """The MLP, or the norm behind it; the stream receives `multiplier` times its output."""
    module, _ = layer.find(family.mlp)
    multiplier = family.multiplier_in(layer.config)
    return Host(module, side="output", width=layer.stream_width, multiplier=multiplier, layer=layer.index)
