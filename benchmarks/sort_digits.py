"""Put digits in order: a task for benchmarks/distillation.py that a small model learns but does not bring along.

trimtab train --task benchmarks/sort_digits.py --method lora --examples 400
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from trimtab.tasks.base import SPLITS, Example, Split, Task


@dataclass(frozen=True)
class SortDigits(Task):
    """`length` different digits in a random order; the answer has them in ascending order.

    The splits share no prompt: a sequence belongs to the split that its digits choose when they are read as a number.
    """

    length: int = 8
    size: int = 3000

    name: ClassVar[str] = "sort-digits"
    max_new_tokens: ClassVar[int] = 24

    def examples(self, split: Split, seed: int) -> Iterator[Example]:
        """Draws that belong to the split, each once."""
        rng = random.Random(f"{seed}/{split}")
        seen: set[str] = set()
        while len(seen) < self.size:
            digits = rng.sample("0123456789", self.length)
            text = " ".join(digits)
            if int("".join(digits)) % len(SPLITS) == SPLITS.index(split) and text not in seen:
                seen.add(text)
                answer = " ".join(sorted(digits))
                prompt = f"Put these digits in ascending order: {text}\n"
                yield Example(prompt, f"Answer: {answer}", answer, f"{split}:{seed}:{len(seen) - 1}")

    def parse(self, output: str) -> str | None:
        """The first `length` digits after the first "Answer:"; a model that has learnt no end goes on behind them."""
        _, _, rest = output.partition("Answer:")
        found = re.match(rf"\s*([0-9](?: [0-9]){{{self.length - 1}}})", rest)
        return found[1] if found else None
