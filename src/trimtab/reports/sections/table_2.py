"""Table 2 of the paper: the smallest adapters."""

from __future__ import annotations

from trimtab.reports.document import Part
from trimtab.reports.outcomes import Outcomes
from trimtab.reports.table_of_methods import table_of_methods

TITLE = "Table 2: the smallest adapters"
ORDER = 20


def parts(outcomes: Outcomes) -> list[Part]:
    """A table for each model; the differences are to full fine-tuning, which table 1 has."""
    return table_of_methods(outcomes, 2, with_others=False)
