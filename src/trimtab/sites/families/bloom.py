"""Bloom: the sub-layers add the skip-connection themselves.

    u = self_attention(input_layernorm(x), residual=x),    z = mlp(post_attention_layernorm(u), residual=u)

What they return is the stream, so what is added to it is the output of their last matrix: `dense` in
attention, `dense_4h_to_h` in the MLP. With slow_but_exact these are applied in slices, past their modules.
"""

from __future__ import annotations

from trimtab.sites.base import Family

FAMILY = Family(
    name="bloom",
    model_types=("bloom",),
    attention="self_attention.dense",
    mlp="mlp.dense_4h_to_h",
    attention_input="self_attention",
    mlp_input="mlp",
    heads="self_attention.dense",
    norms=("input_layernorm", "post_attention_layernorm"),
    refused=("slow_but_exact",),
)
