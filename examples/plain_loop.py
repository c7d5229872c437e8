"""Train a steering adapter in a loop of your own, save it and load it again.

python examples/plain_loop.py --model smollm2-135m --steps 40
"""

import argparse

import torch
from peft import PeftModel, get_peft_model

from trimtab import SteeringConfig
from trimtab.models import load_model

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="smollm2-135m", help="hub id, directory, or the embedded model")
parser.add_argument("--steps", type=int, default=40)
parser.add_argument("--output", default="runs/plain-loop")
options = parser.parse_args()

CAPITALS = {"France": "Paris", "Italy": "Rome", "Japan": "Tokyo", "Spain": "Madrid", "Egypt": "Cairo"}

base, tokenizer = load_model(options.model)
model = get_peft_model(base, SteeringConfig(r=8, task_type="CAUSAL_LM"))
model.print_trainable_parameters()

optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3, weight_decay=0.0)
model.train()
for step in range(options.steps):
    country, capital = list(CAPITALS.items())[step % len(CAPITALS)]
    prompt = tokenizer(f"What is the capital of {country}? In one word:").input_ids
    answer = tokenizer(f" {capital}.", add_special_tokens=False).input_ids
    input_ids = torch.tensor([prompt + answer], device=base.device)
    # The loss is on the answer only.
    labels = torch.tensor([[-100] * len(prompt) + answer], device=base.device)
    loss = model(input_ids=input_ids, labels=labels).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step + 1:3d}  loss {loss.item():.3f}")
model.save_pretrained(options.output)

fresh, _ = load_model(options.model)
model = PeftModel.from_pretrained(fresh, options.output).eval()
question = tokenizer("What is the capital of Greece? In one word:", return_tensors="pt").to(fresh.device)
answer = model.generate(**question, max_new_tokens=8, do_sample=False)[0, question.input_ids.shape[1] :]
print("Greece:", tokenizer.decode(answer, skip_special_tokens=True))
