"""Evaluation: the same answers alone and in a batch, what is recorded, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from transformers import PreTrainedModel

from tiny_language import EOS, LastLetter, byte_tokenizer, tiny_model
from trimtab import SteeringConfig, strength
from trimtab.evaluation import evaluate, generate_answers

PROMPTS = [[5, 9, 33, 70, 12, 8, 90, 41, 17], [3], [88, 61, 7], [14] * 40, [2, 4, 6, 8]]


def greedy_by_hand(model: PreTrainedModel, prompt: list[int], new_tokens: int, end: int) -> list[int]:
    """The most likely continuation, one row at a time, without a cache."""
    tokens = list(prompt)
    for _ in range(new_tokens):
        best = int(model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax())
        if best == end:
            break
        tokens.append(best)
    return tokens[len(prompt) :]


@pytest.mark.parametrize("family", ["llama", "gemma2"])
@pytest.mark.parametrize("steered", [False, True])
def test_batched_answers_equal_a_loop_without_cache_or_padding(family: str, steered: bool) -> None:
    """Prompts of 1 to 40 tokens in one batch, on the base and with a random adapter."""
    model, tokenizer = tiny_model(family), byte_tokenizer()
    if steered:
        model = get_peft_model(model, SteeringConfig(r=4, init_weights=False)).eval()
    together = generate_answers(model, tokenizer, PROMPTS, 12)
    end = tokenizer.eos_token_id
    with torch.no_grad():
        assert together == [greedy_by_hand(model, prompt, 12, end) for prompt in PROMPTS]
    assert len({tuple(answer) for answer in together}) > 1


def test_one_by_one_equals_in_a_batch(tmp_path: Path) -> None:
    """The per-example records are the same bytes, whatever shares a batch."""
    model, tokenizer = tiny_model(), byte_tokenizer()
    kwargs = {"limit": 20, "progress": False}
    evaluate(model, tokenizer, LastLetter(), batch_tokens=1, out=tmp_path / "alone.jsonl", **kwargs)
    evaluate(model, tokenizer, LastLetter(), batch_tokens=100, out=tmp_path / "batch.jsonl", **kwargs)
    assert (tmp_path / "alone.jsonl").read_bytes() == (tmp_path / "batch.jsonl").read_bytes()


def test_answers_stop_at_the_end_of_text() -> None:
    """A row that ends early does not go on while the others do; the end itself is not part of the answer."""
    model, tokenizer = tiny_model(), byte_tokenizer()
    free = generate_answers(model, tokenizer, PROMPTS, 12)
    stop = free[0][3]
    model.generation_config.eos_token_id = [stop]
    cut = generate_answers(model, tokenizer, PROMPTS, 12)
    assert cut == [answer[: answer.index(stop)] if stop in answer else answer for answer in free]
    assert len(cut[0]) <= 3
    kept = generate_answers(model, tokenizer, PROMPTS, 12, keep_end=True)
    assert kept == [answer[: answer.index(stop) + 1] if stop in answer else answer for answer in free]
    assert stop != tokenizer.eos_token_id  # one of the model's own


@pytest.mark.parametrize("steered", [False, True])
def test_the_models_own_generation_settings_do_not_change_a_score(steered: bool) -> None:
    """Sampling, penalties, lengths and forbidden tokens that a model ships with are left aside, and kept for others."""
    base, tokenizer = tiny_model(), byte_tokenizer()
    model = get_peft_model(base, SteeringConfig(r=4, init_weights=False)).eval() if steered else base
    base.generation_config.eos_token_id = [generate_answers(model, tokenizer, PROMPTS, 12)[0][3]]
    plain = generate_answers(model, tokenizer, PROMPTS, 12)
    assert len(plain[0]) <= 3
    own = {"do_sample": True, "temperature": 5.0, "top_k": 3, "repetition_penalty": 3.0, "no_repeat_ngram_size": 2}
    own |= {"suppress_tokens": sorted({answer[0] for answer in plain if answer}), "min_new_tokens": 12}
    for name, value in own.items():
        setattr(base.generation_config, name, value)
    before = base.generation_config
    assert generate_answers(model, tokenizer, PROMPTS, 12) == plain
    assert base.generation_config is before
    assert all(getattr(before, name) == value for name, value in own.items())


def test_the_head_never_reads_a_whole_prompt() -> None:
    """Logits are computed for the last position only."""
    model = tiny_model()
    lengths: list[int] = []
    model.lm_head.register_forward_hook(lambda module, inputs, output: lengths.append(inputs[0].shape[1]))
    generate_answers(model, byte_tokenizer(), PROMPTS, 4)
    assert set(lengths) == {1}


def test_records_and_accuracy(tmp_path: Path) -> None:
    """Every example in its order with prompt, output, parsed answer and label; the accuracy counts them."""
    result = evaluate(
        tiny_model(),
        byte_tokenizer(),
        LastLetter(),
        split="validation",
        out=tmp_path / "deep/answers.jsonl",
        progress=False,
    )
    records = [json.loads(line) for line in (tmp_path / "deep/answers.jsonl").read_text().splitlines()]
    examples = LastLetter().load("validation")
    assert [record["id"] for record in records] == [example.id for example in examples]
    assert [record["prompt"] for record in records] == [example.prompt for example in examples]
    for record, example in zip(records, examples, strict=True):
        assert record["parsed"] == LastLetter().parse(record["output"])
        assert record["correct"] == (record["parsed"] == example.label)
    assert result.accuracy.n == 24
    assert result.accuracy.correct == sum(record["correct"] for record in records)
    assert result.unparsed == sum(record["parsed"] is None for record in records)
    assert "(n = 24)" in str(result)


def test_a_right_answer_counts(tmp_path: Path) -> None:
    """A model that always writes "=n" is right exactly on the words that end with n."""
    model, tokenizer = tiny_model(), byte_tokenizer()
    ids = tokenizer("=n").input_ids

    class Parrot(torch.nn.Module):
        """Logits for "=" first and "n" after it."""

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            """One-hot logits that depend on how often it was called."""
            logits = torch.zeros(*hidden.shape[:2], len(tokenizer))
            logits[..., ids[self.calls % 2]] = 1.0
            self.calls += 1
            return logits

        calls = 0

    model.lm_head = Parrot()
    result = evaluate(model, tokenizer, LastLetter(count=200), progress=False, batch_tokens=100_000)
    words = LastLetter(count=200).load("test")
    assert result.accuracy.correct == sum(example.label == "n" for example in words) > 0


def test_strength_is_recorded() -> None:
    """A result says at which strength the adapter answered."""
    model = get_peft_model(tiny_model(), SteeringConfig(r=2, init_weights=False))
    with strength(model, 0.5):
        result = evaluate(model, byte_tokenizer(), LastLetter(), limit=2, progress=False)
    assert result.settings["strengths"] == {"default": 0.5}


def test_a_prompt_longer_than_the_context_is_refused_before_work() -> None:
    """Prompt and answer together must fit; the error names the example and the lengths."""
    model = tiny_model(max_position_embeddings=12)
    model.generate = None  # nothing may be generated
    with pytest.raises(ValueError, match=r"'test:\d+' has a prompt of \d+ tokens; with 4 for the answer .* of 12"):
        evaluate(model, byte_tokenizer(), LastLetter(), progress=False)


def test_a_model_in_training_mode_goes_back_to_it() -> None:
    """Evaluating in the middle of a training leaves dropout as it was."""
    model = tiny_model().train()
    evaluate(model, byte_tokenizer(), LastLetter(), limit=2, progress=False)
    assert model.training


def test_chat_puts_the_prompt_into_the_template() -> None:
    """The model reads the user's turn and the start of its own."""
    model, tokenizer = tiny_model(), byte_tokenizer(chat=True)
    read: list[str] = []
    model.model.embed_tokens.register_forward_hook(
        lambda module, inputs, output: read.append(tokenizer.decode(inputs[0][0]))
    )
    evaluate(model, tokenizer, LastLetter(count=1), chat=True, progress=False)
    assert read[0] == f"user:{LastLetter(count=1).load('test')[0].prompt}{EOS}\nassistant:"
