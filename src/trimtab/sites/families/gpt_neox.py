"""GPT-NeoX and Pythia: parallel sub-layers, each with its own norm of the same stream.

    z = x + attention(input_layernorm(x)) + mlp(post_attention_layernorm(x))

With use_parallel_residual=False it is sequential, and the modules are the same.
"""

from __future__ import annotations

from trimtab.sites.base import Family

FAMILY = Family(
    name="gpt_neox",
    model_types=("gpt_neox",),
    attention="attention",
    mlp="mlp",
    attention_input="attention",
    mlp_input="mlp",
    heads="attention.dense",
    norms=("input_layernorm", "post_attention_layernorm"),
)
