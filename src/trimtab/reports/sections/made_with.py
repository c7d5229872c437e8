"""What the numbers were made with: code, versions, machines; and where the paper's come from."""

from __future__ import annotations

from collections import Counter

from trimtab.reports.document import Paragraph, Part, Row, Table
from trimtab.reports.outcomes import Outcomes
from trimtab.reports.paper import SOURCE

TITLE = "Made with"
ORDER = 90


def parts(outcomes: Outcomes) -> list[Part]:
    """A row for each environment that runs were scored in, and the source of the paper's numbers."""
    counts: Counter[tuple[str, ...]] = Counter()
    for run in {run.run: run for cell in outcomes.cells for run in outcomes.all_runs(cell)}.values():
        where = run.environment
        versions = ", ".join(f"{name} {version}" for name, version in where.versions.items() if version)
        code = f"Python {where.python}, {versions}"
        counts[where.device, run.dtype, where.git or "no repository", code, where.platform] += 1
    found: list[Part] = [Paragraph(f"The paper's numbers: {SOURCE}, tables 1, 2 and 4, as printed.")]
    if counts:
        columns = ("device", "base in", "commit", "versions", "platform", "runs")
        rows = [Row((*key, f"{number:,}")) for key, number in counts.most_common()]
        found.append(Table("Environments", columns, rows, words=5))
    return found
