"""`generate` with every policy of positions: what is steered is what the definition says, in every way to generate.

The reference is one pass over the finished sequences without a cache, steered by hand (steering_oracle.py).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import PreTrainedModel

from steering_oracle import MODELS, POLICIES, TOLERANCE, base_and_adapted, positions_of, selected, steered_logits
from tiny_models import draw_adapters, tiny_model, token_ids
from trimtab import SteeringConfig

PROMPTS = [5, 8, 3]
WIDTH, NEW = max(PROMPTS), 5
IDS = token_ids(3, WIDTH)
LEFT_MASK = torch.tensor([[0] * (WIDTH - n) + [1] * n for n in PROMPTS])
RIGHT_MASK = LEFT_MASK.flip(1)

each_model = pytest.mark.parametrize("name", MODELS)
each_policy = pytest.mark.parametrize("policy", POLICIES)


def generate(model: Any, **options: Any) -> Any:
    """Exactly NEW tokens, with the logits of each step."""
    given = {"max_new_tokens": NEW, "eos_token_id": None, "pad_token_id": 0, "do_sample": False} | options
    return model.generate(**given, return_dict_in_generate=True, output_logits=True, output_scores=True)


def check(
    base: PreTrainedModel,
    adapted: Any,
    policy: str,
    result: Any,
    mask: Tensor = LEFT_MASK,
    site: str = "block",
    positions: Tensor | None = None,
) -> None:
    """Each step's logits are those of one pass over the finished sequences, steered by hand."""
    sequences = result.sequences
    repeats = len(sequences) // len(mask)
    prompt = mask.repeat_interleave(repeats, 0)
    attention = torch.cat([prompt, prompt.new_ones(len(prompt), sequences.shape[1] - prompt.shape[1])], 1)
    steered = [
        selected(
            policy,
            prompt=int(row.sum()),
            left=int(row.argmax()),
            right=int(row.flip(0).argmax()),
            columns=sequences.shape[1],
        )
        for row in prompt
    ]
    wanted = steered_logits(
        base,
        adapted,
        torch.tensor(steered),
        site=site,
        input_ids=sequences,
        attention_mask=attention,
        position_ids=positions_of(attention) if positions is None else positions,
    )
    got = torch.stack(result.logits, 1)
    assert_close(got, wanted[:, mask.shape[1] - 1 : -1], **TOLERANCE)


@each_model
@each_policy
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_cache": False},
        {"cache_implementation": "static"},
        {"do_sample": True, "num_return_sequences": 2},
        {"do_sample": True, "num_return_sequences": 2, "cache_implementation": "static"},
        {"prefill_chunk_size": 3},
    ],
    ids=["dynamic", "no_cache", "static", "samples", "samples_static", "chunked"],
)
def test_left_padded_prompts(name: str, policy: str, options: dict[str, Any]) -> None:
    """A batch of prompts of unequal length, padded on the left, by every kind of cache and by sampling."""
    base, adapted = base_and_adapted(name, policy)
    check(base, adapted, policy, generate(adapted, input_ids=IDS, attention_mask=LEFT_MASK, **options))


@each_model
@each_policy
@pytest.mark.parametrize("cache", [None, "static"])
def test_right_padded_prompts(name: str, policy: str, cache: str | None) -> None:
    """Padding on the right, which transformers allows with a warning, is no token either."""
    base, adapted = base_and_adapted(name, policy)
    seen: list[Tensor] = []
    # transformers counts on from the padding's position, so the reference takes the positions from there.
    adapted.get_base_model().register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["position_ids"]), with_kwargs=True
    )
    result = generate(adapted, input_ids=IDS, attention_mask=RIGHT_MASK, cache_implementation=cache)
    positions = torch.cat([*seen, seen[-1] + 1], 1)
    check(base, adapted, policy, result, RIGHT_MASK, positions=positions)


@each_model
@each_policy
@pytest.mark.parametrize("use_cache", [True, False])
def test_beams(name: str, policy: str, use_cache: bool) -> None:
    """The score of each returned beam is the sum of its tokens' log-probabilities under steering by hand."""
    base, adapted = base_and_adapted(name, policy)
    result = generate(
        adapted, input_ids=IDS, attention_mask=LEFT_MASK, num_beams=3, num_return_sequences=2, use_cache=use_cache
    )
    mask = LEFT_MASK.repeat_interleave(2, 0)
    attention = torch.cat([mask, mask.new_ones(len(mask), NEW)], 1)
    steered = [selected(policy, int(row.sum()), int(row.argmax()), WIDTH + NEW) for row in mask]
    logits = steered_logits(
        base,
        adapted,
        torch.tensor(steered),
        input_ids=result.sequences,
        attention_mask=attention,
        position_ids=positions_of(attention),
    )
    chances = logits.log_softmax(-1)[:, WIDTH - 1 : -1].gather(-1, result.sequences[:, WIDTH:, None])
    assert_close(result.sequences_scores, chances.sum((1, 2)) / NEW, **TOLERANCE)


@each_model
@each_policy
def test_one_by_one_as_in_a_batch(name: str, policy: str) -> None:
    """Each prompt alone, without padding, gives the logits that it gives in a padded batch."""
    _, adapted = base_and_adapted(name, policy)
    together = generate(adapted, input_ids=IDS, attention_mask=LEFT_MASK)
    for row, length in enumerate(PROMPTS):
        alone = generate(adapted, input_ids=IDS[row : row + 1, WIDTH - length :])
        assert torch.equal(alone.sequences[0, length:], together.sequences[row, WIDTH:])
        assert_close(torch.cat(alone.logits), torch.stack(together.logits, 1)[row], **TOLERANCE)


@each_model
@each_policy
def test_embeddings_in_place_of_ids(name: str, policy: str) -> None:
    """inputs_embeds gives what the ids of the same embeddings give."""
    _, adapted = base_and_adapted(name, policy)
    embeds = adapted.get_base_model().get_input_embeddings()(IDS).detach()
    by_ids = generate(adapted, input_ids=IDS, attention_mask=LEFT_MASK)
    by_embeds = generate(adapted, inputs_embeds=embeds, attention_mask=LEFT_MASK)
    assert torch.equal(by_embeds.sequences[:, -NEW:], by_ids.sequences[:, -NEW:])
    assert_close(torch.stack(by_embeds.logits), torch.stack(by_ids.logits), **TOLERANCE)


@each_policy
@pytest.mark.parametrize("site", ["mlp", "mlp_input", "attention", "heads"])
@pytest.mark.parametrize("name", ["llama", "opt"])
def test_sites_inside_the_layer(name: str, site: str, policy: str) -> None:
    """Inside the layer as after it; OPT flattens rows and columns there."""
    base, adapted = base_and_adapted(name, policy, site)
    check(base, adapted, policy, generate(adapted, input_ids=IDS, attention_mask=LEFT_MASK), site=site)


@each_model
@each_policy
def test_transformers_own_adapters(name: str, policy: str) -> None:
    """model.add_adapter and model.generate, without a PeftModel around."""
    base, model = (tiny_model(name, **MODELS[name]) for _ in range(2))
    model.add_adapter(SteeringConfig(r=3, positions=policy))
    draw_adapters(model)
    for options in ({}, {"cache_implementation": "static"}, {"use_cache": False}):
        check(base, model, policy, generate(model, input_ids=IDS, attention_mask=LEFT_MASK, **options))


@each_policy
@pytest.mark.parametrize("how", ["keyword", "positional", "inputs", "none and keyword", "none by position", "config"])
def test_ways_to_pass_the_prompt(how: str, policy: str) -> None:
    """input_ids by keyword, by position or as `inputs`; padding that transformers infers from the pad token."""
    base, adapted = base_and_adapted("llama", policy)
    model, ids = adapted.get_base_model(), IDS * LEFT_MASK
    settings = {"return_dict_in_generate": True, "output_logits": True, "max_new_tokens": NEW, "do_sample": False}
    settings |= {"eos_token_id": None, "pad_token_id": 0}
    if how == "keyword":
        result = model.generate(input_ids=ids, **settings)
    elif how == "positional":
        result = model.generate(ids, **settings)
    elif how == "inputs":
        result = adapted.generate(inputs=ids, **settings)
    elif how == "none and keyword":
        result = model.generate(inputs=None, input_ids=ids, **settings)
    elif how == "none by position":
        result = model.generate(None, input_ids=ids, **settings)
    else:
        model.generation_config.update(**settings)
        result = model.generate(ids, generation_config=model.generation_config)
    check(base, adapted, policy, result)


@each_policy
def test_a_pad_token_that_is_the_end_token_is_text(policy: str) -> None:
    """Without a mask, a pad token that could be the end of a text is a token, as transformers takes it."""
    base, adapted = base_and_adapted("llama", policy)
    ids = IDS * LEFT_MASK
    result = generate(adapted, input_ids=ids, eos_token_id=0, pad_token_id=0, min_new_tokens=NEW)
    raw = torch.stack(result.logits, 1)
    steered = torch.tensor([selected(policy, WIDTH, 0, result.sequences.shape[1])] * 3)
    wanted = steered_logits(base, adapted, steered, input_ids=result.sequences)
    assert_close(raw, wanted[:, WIDTH - 1 : -1], **TOLERANCE)


@each_policy
def test_a_second_turn_on_the_first_turns_cache(policy: str) -> None:
    """A further `generate` on the cache of the one before: its whole input is prompt, the rest was computed then."""
    base, adapted = base_and_adapted("llama", policy)
    first = generate(adapted, input_ids=IDS, attention_mask=LEFT_MASK)
    more = token_ids(3, 4, seed=5)
    ids = torch.cat([first.sequences, more], 1)
    mask = torch.cat([LEFT_MASK, LEFT_MASK.new_ones(3, NEW + 4)], 1)
    second = generate(adapted, input_ids=ids, attention_mask=mask, past_key_values=first.past_key_values)
    # The last generated token was never read in the first turn: in the second it is prompt.
    steered = []
    for length in PROMPTS:
        read = WIDTH + NEW - 1
        before = selected(policy, length, WIDTH - length, read)
        after = selected(policy, length + NEW + 4, WIDTH - length, WIDTH + 2 * NEW + 4)[read:]
        steered.append(before + after)
    attention = torch.cat([mask, mask.new_ones(3, NEW)], 1)
    wanted = steered_logits(
        base,
        adapted,
        torch.tensor(steered),
        input_ids=second.sequences,
        attention_mask=attention,
        position_ids=positions_of(attention),
    )
    assert_close(torch.stack(second.logits, 1), wanted[:, ids.shape[1] - 1 : -1], **TOLERANCE)


@each_policy
def test_assisted_decoding(policy: str) -> None:
    """Several candidate tokens at a time (prompt look-up) are judged like one at a time."""
    base, adapted = base_and_adapted("llama", policy)
    ids = torch.tensor([[7, 9, 11, 7, 9, 11, 7, 9]])
    plain = generate(adapted, input_ids=ids)
    assisted = generate(adapted, input_ids=ids, prompt_lookup_num_tokens=3)
    assert torch.equal(plain.sequences, assisted.sequences)
    check(base, adapted, policy, assisted, torch.ones_like(ids))
