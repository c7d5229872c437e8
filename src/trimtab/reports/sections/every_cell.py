"""Every number with what belongs to it: rate, mean, both errors, n, the seeds one by one."""

from __future__ import annotations

import math

from trimtab.reports.document import NOTHING, Paragraph, Part, Row, Table, percent, signed, significant
from trimtab.reports.outcomes import Outcomes, validation_share
from trimtab.results import CellRecord

TITLE = "Every cell"
ORDER = 80

_COLUMNS = (
    "task",
    "method",
    "parameters",
    "%",
    "rate",
    "validation",
    "mean",
    "sd",
    "se",
    "n",
    "seeds",
    "each seed",
    "to SFT",
    "± se",
)


def parts(outcomes: Outcomes) -> list[Part]:
    """A row for each cell, model by model."""
    found: list[Part] = [
        Paragraph(
            f"In percent. “validation” is the accuracy that chose the rate, “mean” the mean over the seeds on "
            f"{outcomes.split}; sd: standard deviation over the seeds (n - 1 in its denominator); se: standard error "
            "by the number of examples, sqrt(p (1 - p) / n): every seed answers the same n examples, so more seeds do "
            "not make it smaller. The error of a difference is the root of the sum of both squared errors, which "
            "overstates it: both methods answered the same examples."
        )
    ]
    for model in outcomes.models:
        rows = [_row(outcomes, cell) for cell in outcomes.of(model)]
        found.append(Table(outcomes.short(model), _COLUMNS, rows, words=2))
    return found


def difference_error(outcomes: Outcomes, cell: CellRecord) -> float | None:
    """The standard error of the difference to full fine-tuning, both taken as independent."""
    full = outcomes.fine_tuned(cell)
    if full is None or full is cell or cell.standard_error is None or full.standard_error is None:
        return None
    return math.hypot(cell.standard_error, full.standard_error)


def _row(outcomes: Outcomes, cell: CellRecord) -> Row:
    trained, of = cell.trainable_parameters, cell.model_parameters
    return Row(
        (
            outcomes.short(cell.task),
            cell.method,
            NOTHING if trained is None else f"{trained:,}",
            significant(trained / of if trained and of else None),
            NOTHING if cell.learning_rate is None else f"{cell.learning_rate:g}",
            percent(validation_share(cell)),
            percent(cell.accuracy),
            percent(cell.standard_deviation),
            percent(cell.standard_error),
            NOTHING if cell.n is None else f"{cell.n:,}",
            f"{len(cell.accuracies)} of {len(cell.seeds)}",
            ", ".join(percent(accuracy) for accuracy in cell.accuracies) or NOTHING,
            signed(outcomes.delta(cell)),
            percent(difference_error(outcomes, cell)),
        )
    )
