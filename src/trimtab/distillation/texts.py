"""What both models read: prompts with the tuned model's own answers, in padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from trimtab.encoding import Encoded, encode_prompt, length_batches, require_answerable
from trimtab.evaluation import generate_answers
from trimtab.models import AnyModel, context_length
from trimtab.tasks import Example
from trimtab.tasks.sources import read_jsonl

PROMPT_SUFFIXES = (".jsonl", ".jsonl.gz", ".txt")


@dataclass(frozen=True)
class TextBatch:
    """Texts of similar length, padded on the right.

    Attributes:
        ids: token ids.
        real: true where there is a token.
        prompt: true on the tokens of the prompt.
        predicts: true where the next token is one of the answer's.
    """

    ids: Int[Tensor, "rows tokens"]
    real: Bool[Tensor, "rows tokens"]
    prompt: Bool[Tensor, "rows tokens"]
    predicts: Bool[Tensor, "rows tokens"]

    @classmethod
    def of(cls, texts: Sequence[Encoded], device: torch.device) -> TextBatch:
        """The texts, each its prompt and its answer."""
        longest = torch.arange(max(map(len, texts)))
        lengths, prompts = (torch.tensor([count(text) for text in texts])[:, None] for count in (len, _prompt_length))
        ids = pad_sequence([torch.tensor([*text.prompt, *text.completion]) for text in texts], batch_first=True)
        predicts = (longest >= prompts - 1) & (longest < lengths - 1)
        return cls(*(each.to(device) for each in (ids, longest < lengths, longest < prompts, predicts)))


def _prompt_length(text: Encoded) -> int:
    return len(text.prompt)


def batches(texts: Sequence[Encoded], batch_tokens: int, device: torch.device) -> list[TextBatch]:
    """All texts, in batches of at most `batch_tokens` tokens (or of one text), the longest first."""
    order = length_batches([len(text) for text in texts], 0, batch_tokens)
    return [TextBatch.of([texts[index] for index in batch], device) for batch in order]


def answered(
    tuned: AnyModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    max_new_tokens: int,
    *,
    chat: bool = False,
    batch_tokens: int = 8192,
) -> list[Encoded]:
    """The prompts of `examples`, each with what the tuned model answers greedily: no label is read.

    An answer that ends before `max_new_tokens` has the token that ended it for its last one, so that where to stop, and
    with which of the model's end tokens, is part of what is distilled.

    Raises:
        ValueError: no examples, an empty prompt, or one that leaves no room for the answer in the model's context.
    """
    if not examples:
        raise ValueError("There are no prompts to distil on.")
    prompts = [encode_prompt(tokenizer, example, chat) for example in examples]
    require_answerable(examples, prompts, max_new_tokens, context_length(tuned))
    texts: list[Encoded | None] = [None] * len(prompts)
    for batch in length_batches([len(prompt) for prompt in prompts], max_new_tokens, batch_tokens):
        chosen = [prompts[index] for index in batch]
        answers = generate_answers(tuned, tokenizer, chosen, max_new_tokens, keep_end=True)
        for index, answer in zip(batch, answers, strict=True):
            texts[index] = Encoded(prompts[index], answer)
    return [text for text in texts if text is not None]


def read_prompts(path: Path) -> list[Example]:
    """Prompts of a file: a `.jsonl` with "prompt" on each line (other keys are ignored), or a `.txt`, one a line.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another suffix, a line without a prompt, or no prompt at all.
    """
    if not path.name.endswith(PROMPT_SUFFIXES):
        raise ValueError(f"{path}: prompts are read from {', '.join(PROMPT_SUFFIXES)} only.")
    if path.suffix == ".txt":
        if not path.is_file():
            raise FileNotFoundError(f"There is no file {path}.")
        found = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    else:
        found = [row.text("prompt") for row in read_jsonl(path)]
    if not found:
        raise ValueError(f"{path} holds no prompt.")
    return [Example(prompt, "", "", id=f"{path.name}:{number}") for number, prompt in enumerate(found, start=1)]
