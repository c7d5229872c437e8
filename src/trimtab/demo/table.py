"""The table of the demo, for the terminal, for Markdown and for the page."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from trimtab.demo.outcomes import Outcome

COLUMNS = ("method", "parameters", "% of model", "accuracy %", "n", "training s", "peak memory GB")


def cells(outcome: Outcome) -> tuple[str, ...]:
    """A row: one text for each of `COLUMNS`; "-" where nothing was trained.

    Accuracy with its standard error; memory is that of the process that trained this method and no other,
    model and libraries included (of the GPU, where there is one).
    """
    accuracy = f"{outcome.percent:.1f} ± {outcome.percent_error:.1f}"
    answered = f"{outcome.evaluation.accuracy.n:,}"
    if outcome.training is None:
        return outcome.name, "-", "-", accuracy, answered, "-", "-"
    return (
        outcome.name,
        f"{outcome.parameters:,}",
        f"{100 * outcome.parameters / outcome.model_parameters:.3f}",
        accuracy,
        answered,
        f"{outcome.training.seconds:,.0f}",
        f"{outcome.training.peak_memory / 1e9:.2f}",
    )


def terminal_table(outcomes: Sequence[Outcome]) -> Table:
    """The table for a terminal."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    rows = [cells(outcome) for outcome in outcomes]
    for index, column in enumerate(COLUMNS):
        # In a narrow terminal a header may take two lines; numbers and words stay whole.
        width = max(len(text) for text in (*column.split(), *(row[index] for row in rows)))
        table.add_column(column, justify="right" if index else "left", min_width=width)
    for row in rows:
        table.add_row(*row)
    return table


def markdown_table(outcomes: Sequence[Outcome]) -> str:
    """The table for a README."""
    rows = [COLUMNS, ("---", *("---:" for _ in COLUMNS[1:])), *map(cells, outcomes)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
