"""torch.compile with the whole model in one graph."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXACT = ["eager:linear", "eager:vector", "eager:heads", "eager:mlp", "aot_eager:everything", "aot_eager:positions"]
EXACT += ["eager:loreft", "aot_eager:loreft_nonlinear"]


def run(arguments: list[str]) -> list[dict[str, float]]:
    """The deviations that compiled_model.py finds, in a process without the tests' type checker."""
    folder = Path(__file__).parent
    paths = os.pathsep.join([str(folder.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "JAXTYPING_DISABLE": "1", "PYTHONPATH": paths}
    process = subprocess.run(
        [sys.executable, folder / "compiled_model.py", *arguments], env=environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr[-3000:]
    found = [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]
    assert [case.pop("argument") for case in found] == arguments
    return found


def test_one_graph() -> None:
    """Without a break: the same logits and gradients, and the dial and the prompts' ends still count."""
    for case in run(EXACT):
        assert case.pop("turned_by") > 1e-2
        assert max(case.values()) < 1e-6, case


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None and shutil.which("cc") is None, reason="there is no C compiler")
def test_one_graph_with_inductor() -> None:
    """torch's own backend, which fuses and reorders sums, agrees to the precision of float32."""
    (case,) = run(["inductor:everything"])
    assert case.pop("turned_by") > 1e-2
    assert max(case.values()) < 1e-5, case
