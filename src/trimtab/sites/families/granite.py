"""Granite: Llama, but sub-layer outputs are multiplied by m (residual_multiplier) as they are added.

u = x + m self_attn(input_layernorm(x)),    z = u + m mlp(post_attention_layernorm(u))
"""

from __future__ import annotations

from trimtab.sites.base import Family

FAMILY = Family(
    name="granite",
    model_types=("granite",),
    attention="self_attn",
    mlp="mlp",
    attention_input="self_attn",
    mlp_input="mlp",
    heads="self_attn.o_proj",
    norms=("input_layernorm", "post_attention_layernorm"),
    multiplier="residual_multiplier",
)
