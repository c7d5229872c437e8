"""The verb `report`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from trimtab.cli.parser import usage_errors
from trimtab.reports import Outcomes, write_report


def report(*, results: list[str], out: str | None = None) -> None:
    """Write tables and figures about finished runs: trimtab report DIR [DIR ...].

    The paper's tables 1, 2 and 4 in their layout, its numbers beside ours, and figures, as Markdown and as one HTML
    page. Only results are read, never a model.

    Args:
        results: directories of sweeps, or files like their results.jsonl.
        out: the directory for report.md, report.html and the figures; `report` beside the first results if not given.
    """
    with usage_errors():
        outcomes = Outcomes.read(results)
    first = Path(results[0])
    beside = (first if first.is_dir() else first.parent) / "report"
    page = write_report(outcomes, beside if out is None else out)
    Console().print(f"{page}\n{page.with_suffix('.md')}", highlight=False, soft_wrap=True, markup=False)
