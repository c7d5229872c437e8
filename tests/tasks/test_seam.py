"""Tokenisers cut prompt + completion at the seam where they cut the prompt alone."""

from __future__ import annotations

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from trimtab.tasks import Example, Task

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)


def trained(kind: str, texts: list[str]) -> Tokenizer:
    """A byte-level tokeniser trained on the texts, so that it has every merge that its rule allows."""
    tokenizer = Tokenizer(models.BPE())
    cut = [pre_tokenizers.Split(Regex(LLAMA_3), behavior="isolated")] if kind == "llama3" else []
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind == "gpt2")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*cut, byte_level])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1500, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def moved(example: Example) -> Example:
    """The same text with the newline on the completion's side."""
    return Example(example.prompt[:-1], "\n" + example.completion, example.label, example.id)


def stable(tokenizer: Tokenizer, example: Example) -> bool:
    prompt = tokenizer.encode(example.prompt).ids
    return tokenizer.encode(example.prompt + example.completion).ids[: len(prompt)] == prompt


@pytest.mark.parametrize("kind", ["gpt2", "llama3"])
def test_the_prompts_tokens_are_a_prefix(task: Task, kind: str) -> None:
    """In byte-level tokenisers the tokens of a prompt start those of prompt + completion."""
    examples = task.load("train", limit=30)
    tokenizer = trained(kind, [e.prompt + e.completion for e in examples])
    assert all(stable(tokenizer, example) for example in examples)


def test_a_newline_at_the_completions_start_would_not_do(task: Task) -> None:
    """With Llama 3's rule punctuation takes the newline after it, and that seam moves."""
    examples = task.load("train", limit=30)
    tokenizer = trained("llama3", [e.prompt + e.completion for e in examples])
    if any(example.prompt.rstrip()[-1] in ".]?" for example in examples):
        assert not all(stable(tokenizer, moved(example)) for example in examples)
