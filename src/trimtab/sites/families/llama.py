"""Llama and what is built like it: a norm in front of each sub-layer, none behind.

    u = x + self_attn(input_layernorm(x)),    z = u + mlp(post_attention_layernorm(u))

`post_attention_layernorm` stands in front of the MLP, whatever its name says. In Mixtral and Qwen3-MoE `mlp`
is a mixture of experts. Phi-3 has fused projections inside the sub-layers and dropout behind them.
"""

from __future__ import annotations

from trimtab.sites.base import Family

FAMILY = Family(
    name="llama",
    model_types=("llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "smollm3", "phi3"),
    attention="self_attn",
    mlp="mlp",
    attention_input="self_attn",
    mlp_input="mlp",
    heads="self_attn.o_proj",
    norms=("input_layernorm", "post_attention_layernorm"),
)
