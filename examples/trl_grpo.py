"""Reinforcement learning with TRL: the steered model answers, and a reward says how well.

python examples/trl_grpo.py --model smollm2-135m --steps 20
"""

import argparse

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from trimtab import SteeringConfig
from trimtab.models import load_model

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="smollm2-135m", help="hub id, directory, or the embedded model")
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--output", default="runs/trl-grpo")
options = parser.parse_args()

COUNTRIES = ["France", "Italy", "Japan", "Spain", "Egypt", "Greece", "Kenya", "Chile"]
dataset = Dataset.from_list(
    [{"prompt": [{"role": "user", "content": f"Tell me about {country}."}]} for country in COUNTRIES]
)


def share_of_e(completions: list[list[dict[str, str]]], **columns: object) -> list[float]:
    """The share of letters that are an "e"."""
    texts = [completion[0]["content"].lower() for completion in completions]
    return [text.count("e") / max(len(text), 1) for text in texts]


model, tokenizer = load_model(options.model)
trainer = GRPOTrainer(
    model=model,
    processing_class=tokenizer,
    train_dataset=dataset,
    reward_funcs=share_of_e,
    peft_config=SteeringConfig(r=8),
    args=GRPOConfig(
        output_dir=options.output,
        max_steps=options.steps,
        per_device_train_batch_size=8,
        num_generations=8,
        max_completion_length=16,
        learning_rate=2e-3,
        lr_scheduler_type="constant",
        logging_steps=1,
        report_to="none",
        bf16=False,  # no autocast: the base keeps the dtype that it was loaded in, the adapter float32
    ),
)
trainer.train()
trainer.save_model()
