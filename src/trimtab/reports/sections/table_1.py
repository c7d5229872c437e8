"""Table 1 of the paper: post-block steering beside full fine-tuning, LoRA and ReFT."""

from __future__ import annotations

from trimtab.reports.document import Part
from trimtab.reports.outcomes import Outcomes
from trimtab.reports.table_of_methods import table_of_methods

TITLE = "Table 1: the paper's method, SFT, LoRA and ReFT"
ORDER = 10


def parts(outcomes: Outcomes) -> list[Part]:
    """A table for each model; behind the paper's methods those that are in none of its tables."""
    return table_of_methods(outcomes, 1, with_others=True)
