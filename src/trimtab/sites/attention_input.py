"""What attention reads (pre-attention): h in Attn(h), h = norm1(x) in R^d (paper, section 3.1).

In a family without a norm in front of attention (OLMo 2) it is the stream x itself, as attention's argument: a shift of
it changes attention's output and not the skip-connection.
"""

from __future__ import annotations

from trimtab.sites.base import DecoderLayer, Family, Host


def host(family: Family, layer: DecoderLayer) -> Host:
    """The input side of attention: what queries, keys and values are computed from."""
    module, _ = layer.find(family.attention_input)
    return Host(module, side="input", width=layer.stream_width, layer=layer.index)
