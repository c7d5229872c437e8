"""Tiny random language models, a byte tokenizer and a small task: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from trimtab.tasks import Example, Split, Task

EOS, PAD = "<eos>", "<pad>"
_ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
VOCABULARY = len(_ALPHABET) + 2
_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "eos_token_id": len(_ALPHABET),
    "pad_token_id": len(_ALPHABET) + 1,
    "bos_token_id": None,
}


def byte_tokenizer(pad: bool = True, chat: bool = False) -> PreTrainedTokenizerFast:
    """One token a byte, an end and (`pad`) a padding token; with `chat` a template of one line a turn."""
    vocabulary = {token: index for index, token in enumerate([*_ALPHABET, EOS, PAD])}
    core = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=EOS,
        pad_token=PAD if pad else None,
        clean_up_tokenization_spaces=False,
    )
    if chat:
        tokenizer.chat_template = (
            "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}" + EOS + "\n{% endfor %}"
            "{% if add_generation_prompt %}assistant:{% endif %}"
        )
    return tokenizer


def tiny_config(family: str = "llama", **changes: object) -> PreTrainedConfig:
    """A config of three layers of width 32; Gemma 2 has a soft-cap that really bends its logits."""
    if family == "gemma2":
        special = {
            "head_dim": 8,
            "final_logit_softcapping": 0.5,
            "sliding_window": 8,
            "query_pre_attn_scalar": 8,
        }
        return Gemma2Config(**{**_SHAPE, **special, **changes})
    return LlamaConfig(**{**_SHAPE, "tie_word_embeddings": True, **changes})


def tiny_model(family: str = "llama", seed: int = 0, **changes: object) -> PreTrainedModel:
    """A model of `tiny_config` with random weights in float32, large enough for answers to differ."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(family, initializer_range=0.3, **changes))
    return model.to(torch.float32).eval()


@dataclass(frozen=True)
class LastLetter(Task):
    """Answer a word with its last letter; words have 1 to `longest` letters."""

    count: int = 24
    longest: int = 12

    name: ClassVar[str] = "last-letter"
    max_new_tokens: ClassVar[int] = 4

    def examples(self, split: Split, seed: int) -> Iterator[Example]:
        """Words in a fixed order; the splits differ in their letters."""
        shift = {"train": 0, "validation": 7, "test": 13}[split] + seed
        for i in range(self.count):
            word = "".join(chr(97 + (i * 5 + j * 3 + shift) % 26) for j in range(1 + i * 7 % self.longest))
            yield Example(prompt=f"{word}\n", completion=f"={word[-1]}", label=word[-1], id=f"{split}:{i}")

    def parse(self, output: str) -> str | None:
        """The letter after the first "="."""
        _, sign, rest = output.partition("=")
        return rest[:1] if sign and rest else None
