"""The options of a script that reads a sweep which has been run."""

from __future__ import annotations

import argparse
from pathlib import Path

HERE = Path(__file__).parent


def sweep_options(description: str | None, sweep: str) -> argparse.Namespace:
    """Where the sweep called `sweep` is, and where results and pages go."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", type=Path, default=HERE.parent / "runs" / sweep, help="its directory")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--docs", type=Path, default=HERE.parent / "docs")
    return parser.parse_args()
