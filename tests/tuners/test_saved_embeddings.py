"""An adapter that was saved with the embeddings, as PEFT does after the vocabulary was resized."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model

from tiny_models import tiny_model, token_ids
from trimtab import SteeringConfig


@pytest.mark.parametrize("name", ["gpt2", "gptj", "llama", "opt"])
def test_adapter_loads_with_the_embeddings_beside_it(name: str, tmp_path: Path) -> None:
    """Whatever the family calls its embeddings, they are no surplus key, and they are loaded."""
    base = tiny_model(name)
    base.resize_token_embeddings(67)
    config = SteeringConfig(r=3, task_type="CAUSAL_LM", init_weights=False)
    model = get_peft_model(base, config).eval()
    ids = torch.cat([token_ids(2, 6), torch.full((2, 1), 66)], dim=1)
    expected = model(ids).logits
    model.save_pretrained(tmp_path, save_embedding_layers=True)

    other = tiny_model(name)
    other.resize_token_embeddings(67)
    loaded = PeftModel.from_pretrained(other, tmp_path).eval()
    assert torch.equal(loaded(ids).logits, expected)
