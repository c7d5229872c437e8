"""What is analysed: the two models that a subject stands for, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model

from analysis.subjects import moved, prompts, steered, subject, with_lora
from tiny_language import byte_tokenizer
from tiny_models import assert_same, fingerprint, tiny_model, token_ids
from trimtab.analysis import Subject

IDS = token_ids(2, 6)


def logits(model: Any) -> torch.Tensor:
    """Of IDS."""
    return model(input_ids=IDS).logits


@pytest.mark.parametrize("build", [steered, with_lora])
def test_base_and_oracle_of_an_adapter(build: Any) -> None:
    """As base the adapter is off, bit for bit; as oracle it is on."""
    model = build()
    adapted = logits(model).detach()
    one = subject(model)
    with one.as_base() as base:
        assert torch.equal(logits(base), logits(tiny_model()))
    with one.as_tuned() as tuned:
        assert torch.equal(logits(tuned), adapted)
    assert not torch.equal(adapted, logits(tiny_model()))


def test_a_fine_tuned_model_is_the_oracle_where_it_is_given() -> None:
    """Even beside an adapter."""
    tuned = moved()
    with subject(steered(), tuned).as_tuned() as oracle:
        assert oracle is tuned


@pytest.mark.parametrize("build", [steered, with_lora, tiny_model])
def test_the_model_is_left_as_it_was(build: Any) -> None:
    """Mode of each module, flags, weights, hooks; also when the block fails, and for a frozen adapter."""
    model = build().train()
    next(model.children()).eval()
    list(model.parameters())[-1].requires_grad_(False)
    before = fingerprint(model)
    one = subject(model)
    with one.as_base() as base:
        assert not base.training
        assert not logits(base).requires_grad
    with pytest.raises(ValueError, match="input_ids"), one.as_base() as base:
        base()
    if one.has_oracle:
        with one.as_tuned():
            pass
    assert_same(before, fingerprint(model))


def test_halves_and_tokens() -> None:
    """Tokens without the first ones; the two halves together are the whole."""
    one = subject()
    assert one.tokens(0) == sum(map(len, one.prompts))
    assert one.tokens(3) == sum(max(0, len(prompt) - 3) for prompt in one.prompts)
    assert one.tokens(1, 0) + one.tokens(1, 1) == one.tokens(1)


def test_what_cannot_be_analysed_is_refused() -> None:
    """Each with its reason, before anything is run."""
    tokenizer = byte_tokenizer()
    with pytest.raises(ValueError, match="no prompts"):
        Subject(tiny_model(), tokenizer, ())
    with pytest.raises(ValueError, match="Prompt 1 is empty"):
        Subject(tiny_model(), tokenizer, ((3,), ()))
    with pytest.raises(ValueError, match="65 tokens, more than the model's context of 64"):
        Subject(tiny_model(), tokenizer, ((3,) * 65,))
    with pytest.raises(ValueError, match="another one than the base"):
        Subject(tiny_model(), tokenizer, prompts(), tiny_model(num_hidden_layers=2))
    merged = with_lora()
    merged.merge_adapter()
    with pytest.raises(ValueError, match="unmerge"):
        Subject(merged, tokenizer, prompts())
    with pytest.raises(ValueError, match="no PeftModel"):
        Subject(with_lora().get_base_model(), tokenizer, prompts())
    virtual = get_peft_model(tiny_model(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    with pytest.raises(ValueError, match="virtual tokens"):
        Subject(virtual, tokenizer, prompts())
    with pytest.raises(ValueError, match="Nothing was trained"), subject().as_tuned():
        pass
