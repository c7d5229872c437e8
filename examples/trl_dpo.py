"""Preference optimisation with TRL: the reference is the same model with the adapter switched off.

python examples/trl_dpo.py --model smollm2-135m --steps 30
"""

import argparse

from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from trimtab import SteeringConfig
from trimtab.models import load_model

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="smollm2-135m", help="hub id, directory, or the embedded model")
parser.add_argument("--steps", type=int, default=30)
parser.add_argument("--output", default="runs/trl-dpo")
options = parser.parse_args()

CAPITALS = {"France": "Paris", "Italy": "Rome", "Japan": "Tokyo", "Spain": "Madrid", "Egypt": "Cairo"}
dataset = Dataset.from_list(
    [
        {
            "prompt": [{"role": "user", "content": f"What is the capital of {country}?"}],
            "chosen": [{"role": "assistant", "content": capital}],
            "rejected": [{"role": "assistant", "content": f"The capital of {country} is the city of {capital}."}],
        }
        for country, capital in CAPITALS.items()
    ]
)

model, tokenizer = load_model(options.model)
trainer = DPOTrainer(
    model=model,
    processing_class=tokenizer,
    train_dataset=dataset,
    peft_config=SteeringConfig(r=8),
    args=DPOConfig(
        output_dir=options.output,
        max_steps=options.steps,
        per_device_train_batch_size=5,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        logging_steps=1,
        report_to="none",
        bf16=False,  # no autocast: the base keeps the dtype that it was loaded in, the adapter float32
    ),
)
trainer.train()
trainer.save_model()
