"""What attention adds to the stream (post-attention): Attn(norm1(x)) in u = x + Attn(norm1(x)), in R^d.

Where the family normalises between attention and the skip-connection, it is what leaves that norm.
"""

from __future__ import annotations

from trimtab.sites.base import DecoderLayer, Family, Host


def host(family: Family, layer: DecoderLayer) -> Host:
    """Attention, or the norm behind it; the stream receives `multiplier` times its output."""
    module, _ = layer.find(family.attention)
    multiplier = family.multiplier_in(layer.config)
    return Host(module, side="output", width=layer.stream_width, multiplier=multiplier, layer=layer.index)
