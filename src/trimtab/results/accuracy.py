"""A share of right answers with its error bar."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Accuracy:
    """`correct` of `n` answers, with the standard error sqrt(p (1 - p) / n) of the share p."""

    correct: int
    n: int

    def __post_init__(self) -> None:
        """Refuse an accuracy over nothing and a count outside 0..n."""
        if self.n < 1 or not 0 <= self.correct <= self.n:
            raise ValueError(f"An accuracy needs 0 <= correct <= n and n >= 1, got {self.correct} of {self.n}.")

    @property
    def value(self) -> float:
        """The share of correct answers, 0 to 1."""
        return self.correct / self.n

    @property
    def standard_error(self) -> float:
        """sqrt(p (1 - p) / n), on the same scale as `value`."""
        return math.sqrt(self.value * (1 - self.value) / self.n)

    def __str__(self) -> str:
        """As in "46.0 ± 2.5 % (n = 400)": never without its n."""
        return f"{100 * self.value:.1f} ± {100 * self.standard_error:.1f} % (n = {self.n:,})"
