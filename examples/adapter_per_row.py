"""Several adapters on one base, and a different one for each row of a batch.

python examples/adapter_per_row.py --model smollm2-135m --steps 8
"""

import argparse

import torch
from peft import get_peft_model

from trimtab import SteeringConfig
from trimtab.models import load_model

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="smollm2-135m", help="hub id, directory, or the embedded model")
parser.add_argument("--steps", type=int, default=8)
options = parser.parse_args()

QUESTION = "Question: Is it going to rain?\nAnswer:"
ANSWERS = {"optimist": " No, the sun will shine.", "pessimist": " Yes, it will pour all day."}

base, tokenizer = load_model(options.model)
config = SteeringConfig(intervention="vector", task_type="CAUSAL_LM")
model = get_peft_model(base, config, adapter_name="optimist")
model.add_adapter("pessimist", config)

prompt = tokenizer(QUESTION).input_ids
for name, text in ANSWERS.items():
    model.set_adapter(name)  # the active adapter is the one that is trained
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-2)
    answer = tokenizer(text, add_special_tokens=False).input_ids
    input_ids = torch.tensor([prompt + answer], device=base.device)
    labels = torch.tensor([[-100] * len(prompt) + answer], device=base.device)
    model.train()
    for _ in range(options.steps):
        loss = model(input_ids=input_ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

model.eval()
rows = ["optimist", "pessimist", "__base__"]  # the last one is PEFT's name for no adapter
batch = tokenizer([QUESTION] * len(rows), return_tensors="pt").to(base.device)
generated = model.generate(**batch, adapter_names=rows, max_new_tokens=12, do_sample=False)
for name, ids in zip(rows, generated[:, len(prompt) :], strict=True):
    print(f"{name:10}  {tokenizer.decode(ids, skip_special_tokens=True)!r}")
