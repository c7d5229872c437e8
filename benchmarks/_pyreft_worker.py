"""A fresh process for pyreft's LoReFT, in pyreft's own environment (`pyreft_environment.py` makes it).

LoReFT h + R^T (W h + b - R h) after every layer, on the first 7 and last 7 prompt tokens: pyreft's recipe.
Loop, batch and optimiser are those of the other contestants. The loss is the model's own, with logits at
every position, as in pyreft's trainer: pyvene removes all hooks at every forward pass, so the head cannot be
applied at the labels only. R is float32, W in the dtype of the base: pyreft knows no other mixture.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyreft
import torch
from _measure import Job, Measured, PeakMemory, random_batch, settle, train
from transformers import AutoModelForCausalLM

_ENDS = 7  # prompt tokens at either end


def measure(job: Job) -> Measured:
    """As `_worker.measure`."""
    torch.set_num_threads(job.threads)
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(
        job.model, torch_dtype=getattr(torch, job.dtype), rope_theta=_rope_theta(Path(job.model))
    )
    settle(base)
    memory = PeakMemory()
    layers, width = job.adapted(base.config.num_hidden_layers), base.config.hidden_size
    options = {"embed_dim": width, "low_rank_dimension": job.rank, "dtype": base.dtype}
    representations = [
        {
            "layer": layer,
            "component": "block_output",
            "low_rank_dimension": job.rank,
            "intervention": pyreft.LoreftIntervention(**options),
        }
        for layer in layers
    ]
    model = pyreft.get_reft_model(base, pyreft.ReftConfig(representations=representations))
    model.train()
    ids, labels = random_batch(base.config.vocab_size, job)
    prompt = job.tokens - job.supervised or job.tokens
    tokens = sorted({*range(min(_ENDS, prompt)), *range(max(0, prompt - _ENDS), prompt)})
    places = {"sources->base": (None, [[tokens] * job.rows for _ in layers])}

    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def loss() -> torch.Tensor:
        _, steered = model(inputs, unit_locations=places, labels=labels)
        return steered.loss

    return train(model.parameters(), loss, job.steps, memory)


def _rope_theta(directory: Path) -> float:
    """Where the config has it today; transformers 4.45 looks for it elsewhere and would take a default."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    return float(config["rope_parameters"]["rope_theta"])


if __name__ == "__main__":
    measure(Job(**json.loads(sys.argv[1]))).report()
