"""Where the prompt ends when nobody calls `generate`: labels, prompt_lengths, own loops on a cache, packed rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch import Tensor
from torch.testing import assert_close
from transformers import DynamicCache, StaticCache

from steering_oracle import MODELS, POLICIES, TOLERANCE, base_and_adapted, positions_of, selected, steered_logits
from tiny_models import draw_adapters, tiny_model, token_ids
from trimtab import SteeringConfig, prompt_lengths

LENGTHS, COLUMNS = [6, 9, 4], 12
IDS = token_ids(3, COLUMNS)

each_model = pytest.mark.parametrize("name", MODELS)
each_policy = pytest.mark.parametrize("policy", POLICIES)
each_padding = pytest.mark.parametrize("side", ["left", "right"])


def padded(side: str, counts: list[int]) -> Tensor:
    """An attention mask of COLUMNS columns with so many tokens in each row."""
    mask = torch.tensor([[0] * (COLUMNS - n) + [1] * n for n in counts])
    return mask if side == "left" else mask.flip(1)


def batch(side: str) -> tuple[dict[str, Tensor], list[int], Tensor]:
    """Rows of a prompt and an answer of three tokens: the model's arguments, the prompts' lengths, the labels."""
    counts = [length + 3 for length in LENGTHS]
    mask = padded(side, counts)
    answer = mask.bool() & (mask.cumsum(1) > torch.tensor(LENGTHS)[:, None])
    labels = torch.where(answer, IDS, -100)
    return {"input_ids": IDS, "attention_mask": mask, "position_ids": positions_of(mask)}, LENGTHS, labels


def by_hand(policy: str, side: str) -> Tensor:
    """The steered columns of `batch`."""
    rows = []
    for length in LENGTHS:
        left = COLUMNS - length - 3 if side == "left" else 0
        row = selected(policy, length, left, left + length + 3)
        rows.append(row + [policy == "all"] * (COLUMNS - len(row)))
    return torch.tensor(rows)


@each_model
@each_policy
@each_padding
@pytest.mark.parametrize("told", ["labels", "lengths", "both"])
def test_a_prompt_and_its_answer(name: str, policy: str, side: str, told: str) -> None:
    """Labels, or lengths, or lengths against labels that say less: the tokens of the definition are steered."""
    base, adapted = base_and_adapted(name, policy)
    inputs, lengths, labels = batch(side)
    wanted = steered_logits(base, adapted, by_hand(policy, side), **inputs)
    if told == "labels":
        got = adapted(**inputs, labels=labels).logits
    elif told == "lengths":
        with prompt_lengths(adapted, lengths):
            got = adapted(**inputs).logits
    else:
        with prompt_lengths(adapted, torch.tensor(lengths)):
            got = adapted(**inputs, labels=IDS).logits
    real = inputs["attention_mask"].bool()
    assert_close(got[real], wanted[real], **TOLERANCE)


@each_policy
def test_labels_by_position(policy: str) -> None:
    """The model finds labels among positional arguments too."""
    _, adapted = base_and_adapted("llama", policy)
    inputs, _, labels = batch("left")
    model = adapted.get_base_model()
    plain = model(**inputs, labels=labels).logits
    assert torch.equal(model(IDS, inputs["attention_mask"], inputs["position_ids"], None, None, labels).logits, plain)


@each_policy
def test_the_backbone_alone(policy: str) -> None:
    """Called without the head, the backbone gives the hidden states that it gives inside the model."""
    _, adapted = base_and_adapted("llama", policy)
    inputs, lengths, _ = batch("left")
    model = adapted.get_base_model()
    with prompt_lengths(adapted, lengths):
        inside = model(**inputs, output_hidden_states=True).hidden_states[-1]
        assert torch.equal(model.model(**inputs).last_hidden_state, inside)


@each_model
@each_policy
@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_an_own_loop(name: str, policy: str, kind: str) -> None:
    """Prefill and then one token at a time, in a loop of the user's own with nothing said: prompt, then generated."""
    base, adapted = base_and_adapted(name, policy)
    mask = padded("left", [length + 3 for length in LENGTHS])
    config = adapted.get_base_model().config
    cache = DynamicCache(config=config) if kind == "dynamic" else StaticCache(config=config, max_cache_len=COLUMNS)
    prefill, logits = COLUMNS - 3, []
    for start, end in [(0, prefill), *((c, c + 1) for c in range(prefill, COLUMNS))]:
        output = adapted(
            input_ids=IDS[:, start:end],
            attention_mask=mask[:, :end],
            position_ids=positions_of(mask)[:, start:end],
            past_key_values=cache,
        )
        logits.append(output.logits)
    steered = torch.tensor([selected(policy, length, prefill - length, COLUMNS) for length in LENGTHS])
    inputs = {"input_ids": IDS, "attention_mask": mask, "position_ids": positions_of(mask)}
    wanted = steered_logits(base, adapted, steered, **inputs)
    assert_close(torch.cat(logits, 1)[mask.bool()], wanted[mask.bool()], **TOLERANCE)


@each_model
@each_policy
@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_a_prompt_in_chunks(name: str, policy: str, chunk: int) -> None:
    """A prompt fed piece by piece, inside prompt_lengths: its last token is the prompt's, not a piece's."""
    base, adapted = base_and_adapted(name, policy)
    mask = padded("left", [length + 3 for length in LENGTHS])
    cache, logits = DynamicCache(config=adapted.get_base_model().config), []
    with prompt_lengths(adapted, LENGTHS):
        for start in range(0, COLUMNS, chunk):
            end = min(start + chunk, COLUMNS)
            output = adapted(
                input_ids=IDS[:, start:end],
                attention_mask=mask[:, :end],
                position_ids=positions_of(mask)[:, start:end],
                past_key_values=cache,
            )
            logits.append(output.logits)
    steered = torch.tensor([selected(policy, length, COLUMNS - 3 - length, COLUMNS) for length in LENGTHS])
    inputs = {"input_ids": IDS, "attention_mask": mask, "position_ids": positions_of(mask)}
    wanted = steered_logits(base, adapted, steered, **inputs)
    assert_close(torch.cat(logits, 1)[mask.bool()], wanted[mask.bool()], **TOLERANCE)


def test_several_tokens_on_a_filled_cache_need_a_word() -> None:
    """Outside generate and prompt_lengths they may be prompt or answer: an error, not a guess. Not for `all`."""
    for policy, message in (("generated", "prompt_lengths"), ("all", None)):
        _, adapted = base_and_adapted("llama", policy)
        cache = DynamicCache(config=adapted.get_base_model().config)
        adapted(input_ids=IDS[:, :4], past_key_values=cache)
        if message is None:
            adapted(input_ids=IDS[:, 4:], past_key_values=cache)
        else:
            with pytest.raises(ValueError, match=message):
                adapted(input_ids=IDS[:, 4:], past_key_values=cache)


@pytest.mark.parametrize("name", ["cache", "cache_params"])
def test_a_cache_of_another_kind(name: str) -> None:
    """Where the cache does not say how far the text has come, as in continuous batching: an error, not a guess."""

    class Paged:
        pass

    _, adapted = base_and_adapted("llama", "generated")
    with pytest.raises(ValueError, match="a Paged does not"):
        adapted(input_ids=IDS, use_cache=False, **{name: Paged()})


@each_policy
def test_labels_on_a_filled_cache(policy: str) -> None:
    """What the cache holds is prompt, and the labels say how much of the rest is."""
    base, adapted = base_and_adapted("llama", policy)
    cache = DynamicCache(config=adapted.get_base_model().config)
    adapted(input_ids=IDS[:, :4], past_key_values=cache)
    if policy in ("last_prompt", "first_last(2,1)"):
        cache.reset()  # its last token was steered as the last of a prompt: start over, saying where the prompt ends
        with prompt_lengths(adapted, [9] * 3):
            adapted(input_ids=IDS[:, :4], past_key_values=cache)
    labels = torch.where(torch.arange(4, COLUMNS) >= 9, IDS[:, 4:], -100)
    got = adapted(input_ids=IDS[:, 4:], past_key_values=cache, labels=labels).logits
    steered = torch.tensor([selected(policy, 9, 0, COLUMNS)] * 3)
    assert_close(got, steered_logits(base, adapted, steered, input_ids=IDS)[:, 4:], **TOLERANCE)


@pytest.mark.parametrize("policy", POLICIES[1:])
def test_training_without_a_word_is_an_error(policy: str) -> None:
    """With gradients, a guess would be learnt from: the error says what to pass. Without gradients all is prompt."""
    base, adapted = base_and_adapted("llama", policy)
    adapted.train()
    with pytest.raises(ValueError, match=r"pass labels to the model, or call it inside trimtab\.prompt_lengths"):
        adapted(input_ids=IDS)
    with torch.no_grad():
        got = adapted(input_ids=IDS).logits
    steered = torch.tensor([selected(policy, COLUMNS, 0, COLUMNS)] * 3)
    assert_close(got, steered_logits(base, adapted, steered, input_ids=IDS), **TOLERANCE)


@pytest.mark.parametrize("policy", POLICIES)
def test_classes_are_labels_of_the_whole_text(policy: str) -> None:
    """Labels that are one a row do not say where a prompt ends: all of the text is prompt."""
    from transformers import AutoModelForSequenceClassification

    config = tiny_model("llama").config
    model = AutoModelForSequenceClassification.from_config(config).eval()
    adapted = get_peft_model(model, SteeringConfig(r=3, positions=policy, task_type="SEQ_CLS")).train()
    draw_adapters(adapted)
    training = adapted(input_ids=IDS, labels=torch.tensor([0, 1, 1]))
    training.loss.backward()
    assert_close(training.logits, adapted.eval()(input_ids=IDS).logits)


@pytest.mark.parametrize(("lengths", "message"), [([3, 4], "2 lengths for 3 rows"), ([3], "1 lengths for 3 rows")])
def test_as_many_lengths_as_rows(lengths: list[int], message: str) -> None:
    """A wrong number of lengths is an error that says both numbers; one is not spread over all rows."""
    _, adapted = base_and_adapted("llama", "last_prompt")
    with prompt_lengths(adapted, lengths), pytest.raises(ValueError, match=message):
        adapted(input_ids=IDS)


@pytest.mark.parametrize("lengths", [[-1, 2, 2], [1.5, 2, 2], [[1], [2], [3]]])
def test_lengths_are_whole_numbers(lengths: Any) -> None:
    """Negative lengths, fractions and tables are refused before the model runs."""
    _, adapted = base_and_adapted("llama", "last_prompt")
    with pytest.raises(ValueError, match="prompt_lengths"), prompt_lengths(adapted, lengths):
        pass


def test_lengths_without_such_adapters_are_ignored() -> None:
    """With positions='all', or on a model without adapters, prompt_lengths changes nothing."""
    base, adapted = base_and_adapted("llama", "all")
    for model in (base, adapted):
        plain = model(input_ids=IDS).logits
        with prompt_lengths(model, [1]):
            assert torch.equal(model(input_ids=IDS).logits, plain)
