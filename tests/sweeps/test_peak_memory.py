"""Where the peak of memory is measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trimtab.sweeps import run


def test_the_peak_is_measured_where_the_model_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with GPUs a sweep with --device cpu measures the process, any other its own GPU."""
    measured: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", measured.append)
    given_back: list[bool] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given_back.append(True))
    monkeypatch.setattr(run, "_RESET_PEAK", tmp_path / "clear_refs")
    run.reset_peak_memory("cuda:1")
    assert measured == [torch.device("cuda:1")]
    assert given_back == [True], "the memory of the last run is kept from other workers"
    assert not (tmp_path / "clear_refs").exists()
    run.reset_peak_memory("cpu")
    assert len(measured) == 1
    assert (tmp_path / "clear_refs").read_text() == "5"
