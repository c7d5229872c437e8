"""What the MLP reads (pre-MLP): h in G = MLP(h), h = norm2(u) in R^d (paper, section 3.2).

In a family without a norm in front of the MLP (OLMo 2) it is the stream u itself, as the MLP's argument: a
shift of it changes the MLP's output and not the skip-connection.
"""

from __future__ import annotations

from trimtab.sites.base import DecoderLayer, Family, Host


def host(family: Family, layer: DecoderLayer) -> Host:
    """The input side of the MLP, or of its first matrix where the family has no module for the MLP."""
    module, _ = layer.find(family.mlp_input)
    return Host(module, side="input", width=layer.stream_width, layer=layer.index)
