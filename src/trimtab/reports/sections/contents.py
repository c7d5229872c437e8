"""What the report is about, and what is missing in it."""

from __future__ import annotations

from collections import Counter

from trimtab.reports.document import Paragraph, Part, Row, Table
from trimtab.reports.outcomes import Outcomes
from trimtab.results import CellRecord

TITLE = "What is here, and what is missing"
ORDER = 0
_LONGEST_ERROR = 80
"""Characters; that of a GPU without memory goes on with numbers and a list of processes."""


def parts(outcomes: Outcomes) -> list[Part]:
    """The counts; a table of the cells that lack something; what cannot be known."""
    cells = outcomes.cells
    runs = {run for cell in cells for run in (*cell.trials, *cell.runs)}
    missing = sum(len(cell.missing) for cell in cells)
    seeds = sorted({len(cell.seeds) for cell in cells})
    found: list[Part] = [
        Paragraph(
            f"From {', '.join(outcomes.sources)}: {_count(len(outcomes.models), 'model')}, "
            f"{_count(len(outcomes.tasks()), 'task')}, {_count(len(outcomes.methods), 'method')}; "
            f"{_count(len(runs), 'run')} finished, {missing:,} missing. The learning rate of every method was chosen "
            f"on validation; {' or '.join(map(str, seeds))} seed(s) at this rate were scored on {outcomes.split}."
        )
    ]
    lacking = [cell for cell in cells if cell.missing]
    if lacking:
        rows = [
            Row((outcomes.short(cell.model), outcomes.short(cell.task), cell.method, _words(cell))) for cell in lacking
        ]
        found.append(
            Table(
                "Cells that lack runs",
                ("model", "task", "method", "what is missing"),
                rows,
                words=4,
                note="The same `trimtab sweep` command runs what is missing; --retry_failed what has failed, but for "
                "trainings that diverged.",
            )
        )
    elif not outcomes.from_runs:
        found.append(Paragraph("Nothing is missing: every cell has all of its seeds."))
    if outcomes.from_runs:
        found.append(
            Paragraph(
                f"{', '.join(outcomes.from_runs)} came without cells.jsonl, so whether something is missing in it is "
                "not known. The rate of a cell is the one with test scores, the latest where several have them."
            )
        )
    if outcomes.other_lines:
        found.append(
            Paragraph(
                "Recipes that share a directory want other seeds or rates of the same cells. The line with the most "
                "finished seeds is in this report, of equal ones that which lacks fewer runs, then the latest; not "
                f"these: {'; '.join(_line(outcomes, cell) for cell in outcomes.other_lines)}."
            )
        )
    if outcomes.left_out:
        names = ", ".join(dict.fromkeys(f"{cell.method} on {outcomes.short(cell.task)}" for cell in outcomes.left_out))
        found.append(Paragraph(f"Scored on validation only, and therefore not in this report: {names}."))
    return found


def _line(outcomes: Outcomes, cell: CellRecord) -> str:
    """A line that is not in the report, as in "lora on boolq (2 of 2 seeds; rates 0.001, 0.002)"."""
    model = f", {outcomes.short(cell.model)}" if len(outcomes.models) > 1 else ""
    rates = ", ".join(f"{rate:g}" for rate in cell.learning_rates)
    seeds = f"{len(cell.finished_seeds)} of {_count(len(cell.seeds), 'seed')}"
    return f"{cell.method} on {outcomes.short(cell.task)}{model} ({seeds}; rates {rates})"


def _words(cell: CellRecord) -> str:
    """What a cell lacks, in words."""
    texts = []
    tried = (None, cell.learning_rate)
    trials = [run for run in cell.missing if run["learning_rate"] not in tried]
    seeds = [run for run in cell.missing if run not in trials]
    if trials:
        rates = ", ".join(f"{rate:g}" for rate in dict.fromkeys(run["learning_rate"] for run in trials))
        texts.append(f"validation at rate {rates}")
    if cell.learning_rate is None and cell.diverged == cell.learning_rates:
        texts.append("training diverged at every rate")
    elif seeds:
        texts.append(f"seed {', '.join(str(run['seed']) for run in seeds)} on {cell.split}")
    errors = Counter(_shortened(run["error"]) for run in cell.missing if run["error"])
    texts += [f"{_count(number, 'run')} failed with {error}" for error, number in errors.items()]
    return "; ".join(texts)


def _shortened(error: str) -> str:
    return error if len(error) <= _LONGEST_ERROR else error[:_LONGEST_ERROR] + "…"


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}" + ("" if number == 1 else "s")
