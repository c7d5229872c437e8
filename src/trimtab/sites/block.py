"""The output of the decoder layer: the residual stream after the second skip-connection.

    z = u + G,    u = x + Attn(norm1(x)),    G = MLP(norm2(u))           z in R^d          (paper, section 3)

In a family with parallel sub-layers z = x + Attn(norm1(x)) + MLP(norm2(x)).
"""

from __future__ import annotations

from trimtab.sites.base import DecoderLayer, Family, Host


def host(family: Family, layer: DecoderLayer) -> Host:
    """The decoder layer itself, in every family."""
    return Host(module=layer.name, side="output", width=layer.stream_width, layer=layer.index)
