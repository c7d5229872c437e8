"""benchmarks/together.py: what is measured is what the table says, and what is measured is not measured again."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tiny_directory import save_tiny_model

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One round on a tiny model; with two, only the second is measured; ratios are those of the JSON's numbers."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    script, worker = importlib.import_module("together"), importlib.import_module("_together_worker")
    measured: list[int] = []

    def measure(name: str, file: str, argument: dict[str, Any]) -> dict[str, Any]:
        measured.append(argument["adapters"])
        return worker.measure(worker.Pass(**argument))

    monkeypatch.setattr(script, "last_line", measure)
    model = str(save_tiny_model(tmp_path / "model"))
    folders = ["--results", str(tmp_path), "--docs", str(tmp_path / "docs"), "--model", model, "--dtype", "float32"]
    small = ["--adapters", "1", "3", "--steps", "2", "--rows", "2", "--threads", "1"]
    for rounds, expected in (("1", [0, 1, 3]), ("2", [3, 1, 0]), ("2", [])):
        measured.clear()
        monkeypatch.setattr(sys, "argv", ["together.py", *folders, *small, "--rounds", rounds])
        script.main()
        assert sorted(measured) == sorted(expected)
    found = json.loads((tmp_path / "together.json").read_text(encoding="utf-8"))["results"]
    assert {count: len(rounds) for count, rounds in found.items()} == {"0": 2, "1": 2, "3": 2}
    assert all(len(each["seconds"]) == 2 for rounds in found.values() for each in rounds)
    found = {0: [{"seconds": [1.0, 3.0], "process_mib": 100.0}], 5: [{"seconds": [4.0, 4.0], "process_mib": 150.0}]}
    options = script.argparse.Namespace(
        rows=4, rounds=1, steps=2, method="post-block", task="listops-small", whole=False
    )
    row = script.markdown(options, found).splitlines()[-1]
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        *("5 together", "5.00", "2.50", "150", "500", "0.30", "10.0")
    ]
