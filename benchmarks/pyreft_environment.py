"""Make the environment in which pyreft 0.1.0 runs; nothing is done when it is there.

    python benchmarks/pyreft_environment.py

pyreft pins transformers 4.45.1, so it cannot share an environment with trimtab. torch is of the same version
as here, so that both are measured on the same kernels.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import torch
from _harness import HERE, PYREFT_PYTHON

PACKAGES = ("pyreft==0.1.0", "pyvene==0.1.8")


def make(environment: Path) -> None:
    """A virtual environment with pinned packages; one that could not be finished is removed again."""
    python = environment / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet"]
    try:
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        (environment / ".gitignore").write_text("*\n")
        version = torch.__version__.partition("+")[0]
        requirements = HERE / "pyreft-requirements.txt"
        subprocess.run([*install, f"torch=={version}", "--requirement", str(requirements)], check=True)
        subprocess.run([*install, "--no-deps", *PACKAGES], check=True)
        subprocess.run([str(python), "-c", "import pyreft"], check=True)
    except BaseException:
        shutil.rmtree(environment, ignore_errors=True)
        raise


if __name__ == "__main__":
    if not PYREFT_PYTHON.exists():
        make(PYREFT_PYTHON.parents[1])
