"""What test_compile.py runs in a process of its own, where no type checker is woven into the package.

Prints one line of JSON for each argument "backend:case": the largest deviations from the model that is not compiled.
Inductor writes C++ for every layer, whose compiler takes longest: it gets one.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from peft import get_peft_model

from tiny_models import draw_adapters, tiny_model, token_ids
from trimtab import SteeringConfig, prompt_lengths, set_strength

IDS = token_ids(2, 8)
LABELS = torch.where(torch.arange(8) > 4, IDS, -100)
CASES: dict[str, dict[str, Any]] = {
    "linear": {"r": 3},
    "everything": {"r": 3, "activation": "gelu", "use_bias": True, "normalize": True},
    "vector": {"intervention": "vector"},
    "loreft": {"intervention": "loreft", "r": 3, "site": "mlp"},
    "loreft_nonlinear": {"intervention": "loreft", "r": 3, "activation": "silu", "positions": "first_last(2,1)"},
    "heads": {"r": 3, "site": "heads"},
    "mlp": {"r": 3, "site": "mlp", "layers": [1]},
    "positions": {"r": 3, "positions": "first_last(2,1)"},
}


def deviations(options: dict[str, Any], backend: str) -> dict[str, float]:
    """The largest absolute differences to the model that is not compiled: forward, backward, with the dial turned."""
    torch._dynamo.reset()
    layers = 1 if backend == "inductor" else 2
    model = get_peft_model(tiny_model("llama", num_hidden_layers=layers), SteeringConfig(**options)).eval()
    draw_adapters(model)
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    parameters = [p for p in model.parameters() if p.requires_grad]
    results = []
    for run in (model, compiled):
        output = run(input_ids=IDS, labels=LABELS, use_cache=False)
        grads = torch.autograd.grad(output.loss, parameters)
        results.append((output.logits.detach(), grads))
    (logits, grads), (other_logits, other_grads) = results
    found = {"logits": float((logits - other_logits).abs().max())}
    found["gradients"] = max(float((a - b).abs().max()) for a, b in zip(grads, other_grads, strict=True))
    set_strength(model, -0.5)
    with torch.no_grad():
        turned = [run(input_ids=IDS, labels=LABELS, use_cache=False).logits for run in (model, compiled)]
    found["dial"] = float((turned[0] - turned[1]).abs().max())
    found["turned_by"] = float((turned[0] - logits).abs().max())
    if options.get("positions"):
        with prompt_lengths(model, [3, 5]), torch.no_grad():
            told = [run(input_ids=IDS, use_cache=False).logits for run in (model, compiled)]
        found["lengths"] = float((told[0] - told[1]).abs().max())
    return found


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        backend, case = argument.split(":")
        print(json.dumps({"argument": argument, **deviations(CASES[case], backend)}), flush=True)
