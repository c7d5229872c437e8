"""GPT-2: u = x + attn(ln_1(x)), z = u + mlp(ln_2(u)).

Its matrices are Conv1D modules, which store W^T. Attention returns a tuple.
"""

from __future__ import annotations

from trimtab.sites.base import Family

FAMILY = Family(
    name="gpt2",
    model_types=("gpt2",),
    attention="attn",
    mlp="mlp",
    attention_input="attn",
    mlp_input="mlp",
    heads="attn.c_proj",
    norms=("ln_1", "ln_2"),
)
