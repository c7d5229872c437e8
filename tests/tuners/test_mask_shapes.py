"""Attention masks of every shape that transformers takes: padding is found in them, or there is an error; no guess."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch import Tensor
from torch.testing import assert_close
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, StaticCache
from transformers.masking_utils import create_causal_mask

from steering_oracle import POLICIES, TOLERANCE, base_and_adapted, positions_of, selected, steered_logits
from tiny_models import draw_adapters, tiny_model, token_ids
from trimtab import SteeringConfig, prompt_lengths

LENGTHS, COLUMNS = [6, 9, 4], 9
IDS = token_ids(3, COLUMNS)
MASK = torch.tensor([[0] * (COLUMNS - n) + [1] * n for n in LENGTHS])

some_tokens = pytest.mark.parametrize("policy", POLICIES[1:])


def reference(base: Any, adapted: Any, policy: str, positions: Tensor | None = None) -> Tensor:
    """The logits of the real tokens, steered by hand."""
    steered = torch.tensor([selected(policy, n, COLUMNS - n, COLUMNS) for n in LENGTHS])
    given = {} if positions is None else {"position_ids": positions}
    return steered_logits(base, adapted, steered, input_ids=IDS, attention_mask=MASK, **given)[MASK.bool()]


def matrix(model: Any, mask: Tensor) -> Tensor:
    """The (rows, 1, columns, columns) matrix that transformers makes of a mask."""
    embeds = model.get_input_embeddings()(torch.zeros_like(mask))
    made = create_causal_mask(model.config, inputs_embeds=embeds, attention_mask=mask, past_key_values=None)
    assert made.shape == (len(mask), 1, mask.shape[1], mask.shape[1])
    return made


@some_tokens
def test_a_mask_as_long_as_a_static_cache(policy: str) -> None:
    """Columns behind the tokens are not there yet: the rows' padding is what the first ones say, step by step."""
    base, adapted = base_and_adapted("llama", policy)
    longest = torch.cat([MASK, MASK.new_ones(3, 7)], 1)
    cache = StaticCache(config=adapted.get_base_model().config, max_cache_len=longest.shape[1])
    positions = positions_of(MASK)
    steps = [(0, 6), (6, 7), (7, 8), (8, 9)]
    if policy == "all_but_first(1)":  # where the prompt ends does not matter to it
        wanted = reference(base, adapted, policy, positions)
    else:
        prompts = [n - 3 for n in LENGTHS]
        steered = torch.tensor([selected(policy, n, 6 - n, COLUMNS) for n in prompts])
        inputs = {"input_ids": IDS, "attention_mask": MASK, "position_ids": positions}
        wanted = steered_logits(base, adapted, steered, **inputs)[MASK.bool()]
    logits = [
        adapted(
            input_ids=IDS[:, start:end],
            attention_mask=longest,
            position_ids=positions[:, start:end],
            past_key_values=cache,
        ).logits
        for start, end in steps
    ]
    assert_close(torch.cat(logits, 1)[MASK.bool()], wanted, **TOLERANCE)


@some_tokens
def test_a_model_that_hands_its_backbone_matrices(policy: str) -> None:
    """Gemma 3 with images makes a dictionary of matrices of the mask: the mask that the model itself got counts."""
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Gemma3Config(
        text_config=tiny_model("gemma3_text").config.to_dict(),
        vision_config={**vision, "image_size": 28, "patch_size": 14},
        mm_tokens_per_image=4,
    )
    base = Gemma3ForConditionalGeneration(config).eval()
    adapted = get_peft_model(copy.deepcopy(base), SteeringConfig(r=3, positions=policy)).eval()
    draw_adapters(adapted)
    got = adapted(input_ids=IDS, attention_mask=MASK).logits[MASK.bool()]
    assert_close(got, reference(base, adapted, policy), **TOLERANCE)


@some_tokens
@pytest.mark.parametrize("shape", ["matrix", "dictionary", "shorter"])
def test_masks_that_do_not_say_which_tokens_are_padding(policy: str, shape: str) -> None:
    """Nobody knows where the rows begin, said or not where prompts end: an error with the shape that it takes."""
    _, adapted = base_and_adapted("gemma3_text", policy)
    made = matrix(adapted, MASK)
    mask: Any = {
        "matrix": made,
        "dictionary": dict.fromkeys(("full_attention", "sliding_attention"), made),
        "shorter": MASK[:, 1:],
    }[shape]
    kind = {"matrix": r"of shape \(3, 1, 9, 9\)", "dictionary": "that is a dict", "shorter": r"of shape \(3, 8\)"}[
        shape
    ]
    message = rf"an attention_mask {kind} does not say.*\(rows, columns\), here \(3, 9\)"
    with pytest.raises(ValueError, match=message):
        adapted(input_ids=IDS, attention_mask=mask)
    with pytest.raises(ValueError, match=message), prompt_lengths(adapted, [3, 3, 3]):
        adapted(input_ids=IDS, attention_mask=mask)


def test_matrices_where_padding_does_not_matter() -> None:
    """With positions='all', with an adapter that is disabled, or in `generate`, any mask will do."""
    base, adapted = base_and_adapted("llama", "all")
    inputs = {"input_ids": IDS, "attention_mask": matrix(base, MASK)}
    steered = torch.ones_like(MASK, dtype=torch.bool)
    assert_close(adapted(**inputs).logits, steered_logits(base, adapted, steered, **inputs), **TOLERANCE)
    base, adapted = base_and_adapted("llama", "first_last(2,1)")
    with adapted.disable_adapter():
        assert torch.equal(adapted(**inputs).logits, base(**inputs).logits)


@some_tokens
@pytest.mark.parametrize("told", ["labels", "lengths"])
def test_packed_rows_with_a_matrix(policy: str, told: str) -> None:
    """Positions say where each sequence begins, behind padding too: each gives the logits that it gives alone."""
    _, adapted = base_and_adapted("llama", policy)
    pieces, lengths = token_ids(1, 10).split([6, 4], 1), [4, 1]
    positions = torch.tensor([[1, 1, *range(6), *range(4)]])  # transformers gives padding on the left position 1
    sequence = torch.tensor([0] * 2 + [1] * 6 + [2] * 4)
    causal = torch.ones(12, 12, dtype=torch.bool).tril()
    inputs = {
        "input_ids": torch.cat([torch.zeros(1, 2, dtype=torch.long), *pieces], 1),
        "attention_mask": (causal & (sequence[:, None] == sequence))[None, None],
        "position_ids": positions,
        "use_cache": False,
    }
    labels = [torch.where(torch.arange(p.shape[1]) >= n, p, -100) for p, n in zip(pieces, lengths, strict=True)]
    if told == "labels":
        together = adapted(**inputs, labels=torch.cat([torch.full((1, 2), -100), *labels], 1)).logits
    else:
        with prompt_lengths(adapted, lengths):
            together = adapted(**inputs).logits
    alone = [adapted(input_ids=p, labels=y).logits for p, y in zip(pieces, labels, strict=True)]
    assert_close(together[:, 2:], torch.cat(alone, 1), **TOLERANCE)
    with pytest.raises(ValueError, match="which tokens are padding"):
        adapted(**inputs)


@some_tokens
def test_generate_may_hand_over_matrices(policy: str) -> None:
    """What transformers makes of the mask in `generate` is not asked: a matrix there gives what the mask gives."""
    _, adapted = base_and_adapted("llama", policy)
    seen: list[int] = []
    adapted.get_base_model().register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["attention_mask"].dim()), with_kwargs=True
    )
    options = {"attention_mask": MASK, "max_new_tokens": 3, "eos_token_id": None, "do_sample": False}
    static = adapted.generate(input_ids=IDS, cache_implementation="static", **options)
    assert 4 in seen
    assert torch.equal(static, adapted.generate(input_ids=IDS, **options))
