"""One process of a distributed training; `test_distributed.py` starts two of them with torchrun.

    torchrun --nproc-per-node 2 training_worker.py DIRECTORY

For each count of examples it trains one run, in DIRECTORY/count.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_language import LastLetter, byte_tokenizer, tiny_model
from trimtab.training import TrainingSettings, train

COUNTS = (21, 24)
SETTINGS = TrainingSettings(epochs=2, seed=3)

if __name__ == "__main__":
    torch.set_num_threads(1)
    for count in COUNTS:
        task, run = LastLetter(count=count), Path(sys.argv[1]) / str(count)
        train(tiny_model(), "post-block", task, run, tokenizer=byte_tokenizer(), settings=SETTINGS)
