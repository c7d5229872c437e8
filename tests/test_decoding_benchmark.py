"""What benchmarks/generation.py times: greedy decoding, model by model a token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from transformers import GenerationConfig

from benchmark_scripts import benchmark
from tiny_directory import save_tiny_model
from trimtab import SteeringConfig
from trimtab.models import load_model


def test_decoding_is_generation(tmp_path: Path) -> None:
    """Each model's text is what `generate` writes, with an adapter and without."""
    directory = str(save_tiny_model(tmp_path))
    base, _ = load_model(directory, dtype="float32", device="cpu")
    other, _ = load_model(directory, dtype="float32", device="cpu")
    adapted = get_peft_model(other, SteeringConfig(r=4, task_type="CAUSAL_LM", init_weights=False)).eval()
    prompt = torch.randint(10, base.config.vocab_size, (2, 5))
    exactly = GenerationConfig(max_new_tokens=6, min_new_tokens=6, do_sample=False, pad_token_id=0)
    texts = []
    for model in (base, adapted):
        one = benchmark("_decoding").Decoding(model, prompt)
        for _ in range(6):
            one.step()
        whole = model.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt), generation_config=exactly)
        texts.append(torch.cat(one.tokens, dim=1))
        assert torch.equal(whole[:, 5:], texts[-1])
    assert not torch.equal(*texts)


def test_models_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token each, none of them twice in a row; the pass over the prompt is not among the seconds."""
    decoding = benchmark("_decoding")
    order: list[str] = []

    class Step:
        def __init__(self, model: str, prompt: Any) -> None:
            self.model, self.seconds = model, []

        def step(self) -> None:
            order.append(self.model)
            self.seconds.append(float(len(order)))

    monkeypatch.setattr(decoding, "Decoding", Step)
    seconds = decoding.in_turns({"a": "A", "b": "B", "c": "C"}, None, 3)
    assert order == [*"ABC", *"BCA", *"CAB"]
    assert seconds == {"a": [6.0, 8.0], "b": [4.0, 9.0], "c": [5.0, 7.0]}


def test_calls_are_timed_and_left_as_they_were() -> None:
    """Every call of every module, and no longer than for the block."""
    modules = [torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)]
    x = torch.ones(1, 2)
    expected = modules[1](modules[0](x))
    with benchmark("_decoding").timed(modules) as seconds:
        assert torch.equal(modules[1](modules[0](x)), expected)
        modules[0](x)
    modules[0](x)
    assert len(seconds) == 3
    assert min(seconds) > 0
    assert all("forward" not in vars(module) for module in modules)
