"""`generate(guidance_scale=...)`, which runs a second prompt: refused only where what steers counts tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import get_peft_model

from tiny_models import draw_adapters, tiny_model, token_ids
from trimtab import SteeringConfig, set_strength

IDS = token_ids(2, 6)


@pytest.fixture
def model() -> Any:
    """Two adapters: "everywhere", which is active, and "prompt"."""
    model = get_peft_model(tiny_model(), SteeringConfig(r=3, task_type="CAUSAL_LM"), adapter_name="everywhere")
    model.add_adapter("prompt", SteeringConfig(r=3, positions="last_prompt", task_type="CAUSAL_LM"))
    draw_adapters(model)
    return model.eval()


def guided(model: Any, **options: Any) -> Any:
    """The scores of a guided answer."""
    given = {"max_new_tokens": 3, "eos_token_id": None, "do_sample": False, "output_scores": True}
    found = model.generate(input_ids=IDS, guidance_scale=2.0, return_dict_in_generate=True, **given, **options)
    return torch.stack(found.scores)


def test_an_active_adapter_that_counts_tokens_is_refused(model: Any) -> None:
    """Also beside another, and as the adapter of one row."""
    with pytest.raises(ValueError, match="needs positions='all'"):
        guided(model, adapter_names=["everywhere", "prompt"])
    for active in ("prompt", ["everywhere", "prompt"]):
        model.base_model.set_adapter(active)
        with pytest.raises(ValueError, match="needs positions='all'"):
            guided(model)


def test_an_inactive_one_does_not_matter(model: Any) -> None:
    """The answer is that of a model without it."""
    there = guided(model)
    by_row = guided(model, adapter_names=["everywhere", "everywhere"])
    model.delete_adapter("prompt")
    alone = guided(model)
    torch.testing.assert_close(there, alone)
    torch.testing.assert_close(by_row, alone)


def test_a_disabled_one_does_not_matter(model: Any) -> None:
    """Disabled, or at strength 0, it is the base model."""
    base = guided(tiny_model())
    model.set_adapter("prompt")
    with model.disable_adapter():
        torch.testing.assert_close(guided(model), base)
    set_strength(model, 0.0)
    torch.testing.assert_close(guided(model), base)
