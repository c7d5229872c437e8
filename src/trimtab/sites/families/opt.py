"""OPT: the MLP is no module; its two matrices are children of the layer.

    u = x + self_attn(self_attn_layer_norm(x)),    z = u + fc2(relu(fc1(final_layer_norm(u))))

Between `fc1` and `fc2` the batch is flattened: their tensors are (batch * tokens, width). The 350M model
normalises after the addition instead (do_layer_norm_before=False); what is added comes from the same modules.
"""

from __future__ import annotations

from trimtab.sites.base import Family

FAMILY = Family(
    name="opt",
    model_types=("opt",),
    attention="self_attn",
    mlp="fc2",
    attention_input="self_attn",
    mlp_input="fc1",
    heads="self_attn.out_proj",
    norms=("self_attn_layer_norm", "final_layer_norm"),
)
