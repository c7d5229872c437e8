"""The promises on a real model, whose stream has massive activations that no random model has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch.testing import assert_close

from tiny_models import draw_adapters
from trimtab import SteeringConfig

pytestmark = pytest.mark.real_model

PROMPTS = ["The capital of France is", "Once upon a time, in a small village by the sea, there lived", "2 + 2 ="]


@pytest.fixture
def inputs(smollm2: Any) -> Any:
    """Prompts of unequal length, padded on the left."""
    _, tokenizer = smollm2
    return tokenizer(PROMPTS, return_tensors="pt", padding=True, padding_side="left")


@torch.no_grad()
def test_in_half_precision(smollm2: Any, inputs: Any, tmp_path: Path) -> None:
    """In the base's own dtype: a fresh adapter is a no-op, a random one steers, and it is saved bit for bit."""
    base, _ = smollm2
    wanted = base(**inputs).logits
    model = get_peft_model(base, SteeringConfig(task_type="CAUSAL_LM")).eval()
    assert torch.equal(model(**inputs).logits, wanted)
    draw_adapters(model, scale=3e-3)
    steered = model(**inputs).logits
    assert not torch.equal(steered, wanted)
    model.save_pretrained(tmp_path)
    base = model.unload()
    assert torch.equal(base(**inputs).logits, wanted)
    assert torch.equal(PeftModel.from_pretrained(base, tmp_path)(**inputs).logits, steered)


@torch.no_grad()
@pytest.mark.parametrize("positions", ["all", "first_last(2,1)", "generated"])
def test_cached_and_un_cached_agree(smollm2: Any, inputs: Any, positions: str) -> None:
    """In float32, with a cache and without: the same tokens, and logits that agree to 1e-5 of their size, about 36."""
    base, _ = smollm2
    model = get_peft_model(base.float(), SteeringConfig(positions=positions, normalize=True)).eval()
    draw_adapters(model, scale=3e-2)
    options = {"max_new_tokens": 4, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    cached, un_cached = (model.generate(**inputs, use_cache=use_cache, **options) for use_cache in (True, False))
    assert torch.equal(cached.sequences, un_cached.sequences)
    assert_close(torch.stack(cached.logits), torch.stack(un_cached.logits), rtol=0, atol=3.6e-4)
