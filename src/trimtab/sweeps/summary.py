"""What came of a sweep: a row for each cell."""

from __future__ import annotations

from rich.console import Group
from rich.markup import escape

from trimtab.results import CellRecord
from trimtab.sweeps.cells import cell_record
from trimtab.sweeps.directory import SweepDirectory
from trimtab.sweeps.grid import Grid
from trimtab.sweeps.plan import by_place, place_table


def summary_table(grid: Grid, directory: SweepDirectory) -> Group:
    """The chosen rate of each cell, its score on validation, and the mean over its seeds, in percent.

    Behind the mean stand the standard deviation over the seeds (n - 1 in its denominator) and the standard error by
    the number of examples, sqrt(p (1 - p) / n): every seed answers the same n, so more seeds do not make it smaller.
    """
    tables = []
    for place, cells in by_place(grid):
        table = place_table(place, "rate", "validation", grid.recipe.stage, "sd", "error", "seeds", "n")
        for cell in cells:
            record = cell_record(cell, directory)
            best = max((correct / n for _, correct, n in record.validation), default=None)
            table.add_row(
                escape(cell.method),
                "-" if record.learning_rate is None else f"{record.learning_rate:g}",
                "-" if best is None else f"{100 * best:.1f}",
                *_mean_and_errors(record),
            )
        tables.append(table)
    return Group(*tables)


def _mean_and_errors(record: CellRecord) -> tuple[str, ...]:
    if record.accuracy is None or record.standard_error is None:
        return ("-",) * 5
    spread = "-" if record.standard_deviation is None else f"{100 * record.standard_deviation:.1f}"
    mean, error = f"{100 * record.accuracy:.1f}", f"{100 * record.standard_error:.1f}"
    return mean, spread, error, f"{len(record.accuracies)}", f"{record.n:,}"
