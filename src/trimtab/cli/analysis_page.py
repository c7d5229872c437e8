"""What `trimtab analyze` writes: a page that needs nothing else, the numbers as JSON, the figures as files."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trimtab.analysis import Analyses, get_analysis
from trimtab.figures import save_svg
from trimtab.files import write_text
from trimtab.reports.document import Paragraph, Part, Picture, Row, Section, Table
from trimtab.reports.page import page
from trimtab.results import Environment


def require_page_packages() -> None:
    """Raise ModuleNotFoundError if what draws the page is not installed; before anything is measured."""
    missing = [name for name in ("matplotlib", "jinja2") if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(f"The page needs {' and '.join(missing)}. Run: pip install 'trimtab[report]'")


def write_analyses(found: Analyses, about: dict[str, Any], environment: Environment, directory: Path) -> None:
    """Write index.html, analysis.json and figures/NAME.svg.

    Args:
        found: the findings.
        about: what was analysed and how, as plain values.
        environment: what it was computed with.
        directory: where to; it is made.
    """
    directory.mkdir(parents=True, exist_ok=True)
    record = {
        "settings": about,
        "environment": asdict(environment),
        "findings": {
            name: {
                "title": get_analysis(name).title,
                "summary": finding.summary,
                "caption": finding.caption,
                "numbers": finding.to_dict(),
            }
            for name, finding in found.findings.items()
        },
        "skipped": found.skipped,
    }
    write_text(directory / "analysis.json", json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
    pictures = {
        name: Picture("", finding.figure(), alt=f"{finding.caption} {finding.summary}", note=finding.caption)
        for name, finding in found.findings.items()
    }
    for name, picture in pictures.items():
        save_svg(picture.drawing, directory / "figures" / f"{name}.svg")
    sections = [
        Section(get_analysis(name).title, (Paragraph(finding.summary), pictures[name]))
        for name, finding in found.findings.items()
    ]
    if found.skipped:
        rows = [Row((get_analysis(name).title, reason)) for name, reason in found.skipped.items()]
        sections.append(Section("What was left out", (Table("", ("analysis", "why"), rows, words=2),)))
    sections.append(Section("Made with", _made_with(about, environment)))
    title = " and ".join(Path(str(about[name])).name for name in ("model", "adapter", "tuned") if about[name])
    write_text(directory / "index.html", page(f"What the paper measures, on {title}", sections))


def _made_with(about: dict[str, Any], environment: Environment) -> tuple[Part, ...]:
    versions = ", ".join(f"{package} {version}" for package, version in environment.versions.items() if version)
    return (
        Table("", ("setting", "value"), [Row((name, _text(value))) for name, value in about.items()], words=2),
        Paragraph(
            f"{versions}, Python {environment.python}; {environment.platform}; device {environment.device}"
            f"{f'; commit {environment.git}' if environment.git else ''}. {environment.command}"
        ),
    )


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
