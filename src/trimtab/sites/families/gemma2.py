"""Gemma 2 and Gemma 3: a norm in front of each sub-layer and one behind it.

    u = x + post_attention_layernorm(self_attn(input_layernorm(x)))
    z = u + post_feedforward_layernorm(mlp(pre_feedforward_layernorm(u)))

What is added to the stream leaves the norm behind. OLMo 2 has only the norms behind:

    u = x + post_attention_layernorm(self_attn(x)),    z = u + post_feedforward_layernorm(mlp(u))
"""

from __future__ import annotations

from trimtab.sites.base import Family

FAMILY = Family(
    name="gemma2",
    model_types=("gemma2", "gemma3_text", "olmo2"),
    attention="post_attention_layernorm",
    mlp="post_feedforward_layernorm",
    attention_input="self_attn",
    mlp_input="mlp",
    heads="self_attn.o_proj",
    norms=("input_layernorm", "pre_feedforward_layernorm"),
)
