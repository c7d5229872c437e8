"""GPT-J: parallel sub-layers that read one and the same norm: z = x + attn(ln_1(x)) + mlp(ln_1(x)).

Attention and the layer itself return tuples. A shift of what the MLP reads must not reach attention: the host
is the MLP's argument, not the norm's output.
"""

from __future__ import annotations

from trimtab.sites.base import Family

FAMILY = Family(
    name="gptj",
    model_types=("gptj",),
    attention="attn",
    mlp="mlp",
    attention_input="attn",
    mlp_input="mlp",
    heads="attn.out_proj",
    norms=("ln_1",),
)
