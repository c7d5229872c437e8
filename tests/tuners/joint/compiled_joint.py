"""What test_joint_compile.py runs in a process of its own, where no type checker is woven into the package.

Prints one line of JSON for each argument "backend:constraint": the largest deviations from the model that is not
compiled, and the largest change that a step of training makes. Inductor writes C++ for every layer, whose compiler
takes longest: it gets one.
"""

from __future__ import annotations

import json
import sys

import torch

from joint_models import IDS, draw, joint_model
from tiny_models import tiny_model
from trimtab import set_strength


def deviations(backend: str, constraint: str) -> dict[str, float]:
    """One graph, forward and backward; again after an optimiser's step, which changes B; again with the dial turned."""
    torch._dynamo.reset()
    found: dict[str, float] = {}
    runs = []
    for compiled in (False, True):
        base = tiny_model("llama", num_hidden_layers=1 if backend == "inductor" else 3)
        model = draw(joint_model(base, constraint=constraint, use_bias=constraint == "orthogonal"))
        run = torch.compile(model, backend=backend, fullgraph=True) if compiled else model
        optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.3)
        outputs = []
        for _ in range(2):
            output = run(input_ids=IDS, labels=IDS, use_cache=False)
            output.loss.backward()
            outputs += [output.logits.detach(), *(p.grad.clone() for p in model.parameters() if p.requires_grad)]
            optimiser.step()
            optimiser.zero_grad()
        set_strength(model, -0.5)
        with torch.no_grad():
            outputs.append(run(input_ids=IDS, use_cache=False).logits)
        runs.append(outputs)
    found["deviation"] = max(float((a - b).abs().max()) for a, b in zip(*runs, strict=True))
    half = len(runs[0]) // 2
    found["moved_by"] = float((runs[0][0] - runs[0][half]).abs().max())
    return found


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(json.dumps({"argument": argument, **deviations(*argument.split(":"))}), flush=True)
