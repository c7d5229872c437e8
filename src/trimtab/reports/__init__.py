"""A report on sweeps: the paper's tables with the paper's numbers beside ours, and figures; from results alone."""

from trimtab.reports.outcomes import Outcomes
from trimtab.reports.report import write_report

__all__ = ["Outcomes", "write_report"]
