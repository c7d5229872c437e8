"""Examples become token ids: the same prompt for training and for generation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2.exceptions import TemplateError  # a dependency of torch
from transformers import PreTrainedTokenizerBase

from trimtab.tasks import Example


@dataclass(frozen=True)
class Encoded:
    """The token ids of a prompt and of the completion that follows it."""

    prompt: list[int]
    completion: list[int]

    def __len__(self) -> int:
        """How many tokens the model reads."""
        return len(self.prompt) + len(self.completion)


def encode_prompt(tokenizer: PreTrainedTokenizerBase, example: Example, chat: bool = False) -> list[int]:
    """The token ids of an example's prompt, as plain text or (`chat`) in the model's chat template.

    Raises:
        ValueError: there is no chat template, or it does not take the example's conversation.
    """
    if not chat:
        return list(tokenizer(example.prompt).input_ids)
    text, _ = _in_template(tokenizer, example)
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def encode_example(tokenizer: PreTrainedTokenizerBase, example: Example, chat: bool = False) -> Encoded:
    """The token ids of an example's prompt and completion.

    The prompt is encoded exactly as for generation. Where encoding prompt and completion together begins with
    the same ids, the rest is the completion; where a token would span the border, the completion is encoded
    alone. Plain text gets no end-of-text token, as in the paper's code; a chat template brings its own.

    Raises:
        ValueError: the completion is empty, or as `encode_prompt`.
    """
    if chat:
        prompt_text, completion_text = _in_template(tokenizer, example)
    else:
        prompt_text, completion_text = example.prompt, example.completion
    prompt = encode_prompt(tokenizer, example, chat)
    together = list(tokenizer(prompt_text + completion_text, add_special_tokens=not chat).input_ids)
    completion = together[len(prompt) :]
    if together[: len(prompt)] != prompt:
        completion = list(tokenizer(completion_text, add_special_tokens=False).input_ids)
    if not completion:
        raise ValueError(f"Example {example.id!r} has an empty completion: there is nothing to learn from it.")
    return Encoded(prompt, completion)


def in_template(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Any], what: str, answer_follows: bool) -> str:
    """A conversation as the model's chat template writes it.

    Args:
        tokenizer: the model's, with a chat template.
        turns: messages with a role and a content.
        what: what the conversation is called in an error.
        answer_follows: end where the assistant's next words begin.

    Raises:
        ValueError: the template refuses the conversation (some take no system message, or only turns that alternate),
            or has a mistake of its own; with the template's words.
    """
    try:
        written = tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=answer_follows)
    except TemplateError as error:
        reason = " ".join(str(error).split()).removesuffix(".")  # of a mistake in the template, several lines
        raise ValueError(f"{what} cannot be written in the model's chat template: {reason}.") from error
    return str(written)


def length_batches(lengths: Sequence[int], new_tokens: int, batch_tokens: int) -> Iterator[list[int]]:
    """Indices in batches of similar length, the longest first, each within `batch_tokens` or of one example.

    Args:
        lengths: tokens of each prompt.
        new_tokens: tokens that are added to each.
        batch_tokens: rows x (longest prompt + new_tokens) stays within this.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        rows = max(1, batch_tokens // (lengths[order[start]] + new_tokens))
        yield order[start : start + rows]
        start += rows


def require_answerable(
    examples: Sequence[Example], prompts: Sequence[Sequence[int]], new_tokens: int, context: int | None
) -> None:
    """Refuse a prompt without tokens, and one that leaves no room for its answer.

    Args:
        examples: whose prompts they are.
        prompts: the token ids of each prompt.
        new_tokens: of the longest answer.
        context: how many tokens the model reads; None: no limit.

    Raises:
        ValueError: names the example.
    """
    for example, prompt in zip(examples, prompts, strict=True):
        if not prompt:
            raise ValueError(f"Example {example.id!r} has an empty prompt.")
        if context is not None and len(prompt) + new_tokens > context:
            raise ValueError(
                f"Example {example.id!r} has a prompt of {len(prompt):,} tokens; with {new_tokens:,} for the "
                f"answer that is more than the model's context of {context:,}."
            )


def _in_template(tokenizer: PreTrainedTokenizerBase, example: Example) -> tuple[str, str]:
    """Prompt and completion in the model's chat template; the completion ends with the end of its turn."""
    if tokenizer.chat_template is None:
        raise ValueError("chat=True needs a model with a chat template; this tokenizer has none.")
    turns: list[Any] = list(example.messages or ()) or [
        {"role": "user", "content": example.prompt},
        {"role": "assistant", "content": example.completion},
    ]
    prompt = in_template(tokenizer, turns[:-1], f"Example {example.id!r}", answer_follows=True)
    whole = in_template(tokenizer, turns, f"Example {example.id!r}", answer_follows=False)
    if not whole.startswith(prompt):
        raise ValueError("The chat template writes a prompt differently when its answer follows; use chat=False.")
    completion = whole[len(prompt) :]
    # Many templates put a line break after the end of the turn; generation stops before it.
    ended = completion.rstrip()
    return prompt, ended if tokenizer.eos_token and ended.endswith(tokenizer.eos_token) else completion
