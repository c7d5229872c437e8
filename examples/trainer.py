"""Train a steering adapter with transformers' Trainer; a run that was stopped goes on where it was.

python examples/trainer.py --model smollm2-135m --steps 40
"""

import argparse

from datasets import Dataset
from peft import get_peft_model
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from trimtab import SteeringConfig
from trimtab.models import load_model

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="smollm2-135m", help="hub id, directory, or the embedded model")
parser.add_argument("--steps", type=int, default=40)
parser.add_argument("--output", default="runs/trainer")
options = parser.parse_args()

set_seed(0)
base, tokenizer = load_model(options.model)
model = get_peft_model(base, SteeringConfig(r=8, task_type="CAUSAL_LM"))


def encode(number: int) -> dict[str, list[int]]:
    """A sum, with the loss on its result only."""
    prompt = tokenizer(f"{number} + 7 =").input_ids
    answer = tokenizer(f" {number + 7}.", add_special_tokens=False).input_ids
    return {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}


trainer = Trainer(
    model=model,
    args=TrainingArguments(
        output_dir=options.output,
        max_steps=options.steps,
        per_device_train_batch_size=8,
        learning_rate=2e-3,
        lr_scheduler_type="constant",
        logging_steps=1,
        save_steps=20,
        report_to="none",
    ),
    train_dataset=Dataset.from_list([encode(number) for number in range(80)]),
    data_collator=DataCollatorForSeq2Seq(tokenizer),
)
trainer.train(resume_from_checkpoint=get_last_checkpoint(options.output))
trainer.save_model()
