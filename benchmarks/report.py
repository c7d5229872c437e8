"""The page of the documentation with what all benchmarks found.

python benchmarks/report.py      # docs/benchmarks.md from benchmarks/results; every benchmark does it too
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trimtab.files import write_text

NAMES = ("step", "growth", "generation", "prefix", "together", "joint")
INTRODUCTION = """\
# Benchmarks

`make bench` measures what is on this page and writes it; `benchmarks/results` holds every single measurement
as JSON. Contestants run side by side: in rotation, every other round backwards, training steps each in a
fresh process. What counts are the ratios; the seconds are those of one machine.
"""


def page(results: Path) -> str:
    """The page, from the sections that are there."""
    parts = [INTRODUCTION]
    for name in NAMES:
        if (results / f"{name}.md").is_file():
            record = json.loads((results / f"{name}.json").read_text(encoding="utf-8"))
            parts += [(results / f"{name}.md").read_text(encoding="utf-8"), _provenance(record)]
    return "\n".join(parts)


def write_page(results: Path, docs: Path) -> None:
    """Write benchmarks.md into the directory of the documentation."""
    docs.mkdir(parents=True, exist_ok=True)
    write_text(docs / "benchmarks.md", page(results))


def _provenance(record: dict[str, Any]) -> str:
    where, environment = record["machine"], record["environment"]
    packages = ", ".join(f"{name} {version}" for name, version in environment["versions"].items() if version)
    return (
        f"Measured on {where['processor']}, {where['threads']} of {where['cores']} cores, load average "
        f"{where['load_average']:.1f} at the start, with {packages}:\n\n"
        f"```bash\npython benchmarks/{environment['command']}\n```\n"
    )


if __name__ == "__main__":
    _HERE = Path(__file__).parent
    write_page(_HERE / "results", _HERE.parent / "docs")
