"""From results to a report: report.md, report.html and the figures, in a directory."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from trimtab.figures import require_matplotlib, save_svg
from trimtab.files import write_text
from trimtab.reports.document import Picture
from trimtab.reports.markdown import FIGURES, markdown
from trimtab.reports.outcomes import Outcomes
from trimtab.reports.page import page
from trimtab.reports.sections import sections


def write_report(outcomes: Outcomes, out: str | Path) -> Path:
    """Write the report on `outcomes`; no model is loaded.

    Args:
        outcomes: the results, as `Outcomes.read` gives them.
        out: the directory of the report.

    Returns:
        The page; report.md and the folder `figures` are beside it.

    Raises:
        ModuleNotFoundError: the extra `report` is not installed.
        FileExistsError: `out` is a file.
    """
    require_matplotlib()
    if importlib.util.find_spec("jinja2") is None:
        raise ModuleNotFoundError("The page needs jinja2. Run: pip install 'trimtab[report]'")
    directory = Path(out)
    if directory.exists() and not directory.is_dir():
        raise FileExistsError(f"{directory} is a file, not a directory.")
    title = f"Results: {', '.join(outcomes.short(model) for model in outcomes.models)}"
    found = sections(outcomes)
    directory.mkdir(parents=True, exist_ok=True)
    for part in (part for section in found for part in section.parts):
        if isinstance(part, Picture):
            save_svg(part.drawing, directory / FIGURES / f"{part.name}.svg")
    write_text(directory / "report.md", markdown(title, found))
    write_text(directory / "report.html", page(title, found))
    return directory / "report.html"
