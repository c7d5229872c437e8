"""(model, task) -> what the model answers to each example, and its accuracy with an error bar."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from peft import PeftModel
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerBase

from trimtab.encoding import encode_prompt, length_batches, require_answerable
from trimtab.files import write_text
from trimtab.models import AnyModel, context_length, device_name, model_name
from trimtab.prefix import cached_prefix, shared_prefix, tells_columns_apart
from trimtab.results import Accuracy, Environment, EvaluationResult
from trimtab.tasks import Example, Split, Task, get_task
from trimtab.tuners.steering import get_strengths


def evaluate(
    model: AnyModel,
    tokenizer: PreTrainedTokenizerBase,
    task: str | Task,
    *,
    split: Split = "test",
    limit: int | None = None,
    data_seed: int = 0,
    chat: bool = False,
    batch_tokens: int = 8192,
    out: str | Path | None = None,
    name: str | None = None,
    progress: bool = True,
) -> EvaluationResult:
    """Let `model` answer the examples of a split, greedily, and score the answers.

    Args:
        model: a base, or one with adapters on it (they answer at their current strength).
        tokenizer: the model's.
        task: a name or a Task.
        split: "train", "validation" or "test".
        limit: at most this many examples; None: all.
        data_seed: which examples these are.
        chat: put the prompts into the model's chat template.
        batch_tokens: tokens of a batch, padding and answers included: the knob for memory. 1: one by one.
        out: where the JSONL of the examples goes (id, prompt, output, parsed, label, correct); None: nowhere.
        name: what the result calls the model; None: the name it was loaded by.
        progress: draw a progress bar.

    Raises:
        ValueError: an unknown name, or a prompt that does not fit into the model's context with its answer;
            both before the first answer is generated.
    """
    task = get_task(task) if isinstance(task, str) else task
    if batch_tokens < 1:
        raise ValueError(f"batch_tokens={batch_tokens!r} must be at least 1.")
    examples = task.load(split, limit=limit, seed=data_seed)
    prompts = [encode_prompt(tokenizer, example, chat) for example in examples]
    require_answerable(examples, prompts, task.max_new_tokens, context_length(model))

    started = time.perf_counter()
    outputs = [""] * len(examples)
    generated = 0
    with _progress_bar(progress) as bar:
        row = bar.add_task(f"{task.name} ({split})", total=len(examples))
        for batch in length_batches([len(ids) for ids in prompts], task.max_new_tokens, batch_tokens):
            answers = generate_answers(model, tokenizer, [prompts[i] for i in batch], task.max_new_tokens)
            for index, answer in zip(batch, answers, strict=True):
                outputs[index] = str(tokenizer.decode(answer, skip_special_tokens=True))
                generated += len(answer)
            bar.advance(row, len(batch))
    seconds = time.perf_counter() - started

    records = [_record(task, example, output) for example, output in zip(examples, outputs, strict=True)]
    if out is not None:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        write_text(Path(out), "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    return EvaluationResult(
        model=name or model_name(model),
        task=task.name,
        split=split,
        accuracy=Accuracy(correct=sum(record["correct"] for record in records), n=len(records)),
        unparsed=sum(record["parsed"] is None for record in records),
        seconds=seconds,
        generated_tokens=generated,
        records=None if out is None else Path(out).name,
        environment=Environment.collect(device_name(model)),
        settings={
            "limit": limit,
            "data_seed": data_seed,
            "chat": chat,
            "batch_tokens": batch_tokens,
            "max_new_tokens": task.max_new_tokens,
            "dtype": str(model.dtype).removeprefix("torch."),
            "strengths": get_strengths(model),
        },
        split_note=task.split_note,
    )


def generate_answers(
    model: AnyModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    share_prefix: bool = True,
    keep_end: bool = False,
) -> list[list[int]]:
    """The tokens that `model` continues each prompt with, greedily, up to an end-of-text token.

    That token, of which a model may have several, is among them with `keep_end` only.
    With `share_prefix`, what all prompts begin with is computed once (`trimtab.prefix`). Of the model's own generation
    settings only the end-of-text tokens apply: a score must not depend on sampling, penalties or suppressed tokens.
    """
    pad, ends = tokenizer.pad_token_id, _end_tokens(model, tokenizer)
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    was_training = model.training
    model.eval()
    try:
        ids, _ = _padded(prompts, pad, int(lengths.min()))
        shortest, longest = int(lengths.min()), int(lengths.max())
        exact = shortest == longest or not tells_columns_apart(model, longest + max_new_tokens)
        shared = shared_prefix(model, ids, lengths) if share_prefix and exact else 0
        ids, mask = (each.to(model.device) for each in _padded(prompts, pad, shared))
        with _no_generation_settings(model), _contiguous_head_input(model), torch.no_grad():
            cache = cached_prefix(model, ids[:1, :shared], len(ids), int(lengths.min())) if shared else None
            output = model.generate(  # type: ignore[operator]
                input_ids=ids,
                attention_mask=mask,
                past_key_values=cache,
                generation_config=GenerationConfig(
                    max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=ends, pad_token_id=pad
                ),
            )
    finally:
        model.train(was_training)
    return [_until(row, ends, keep_end) for row in output[:, ids.shape[1] :].tolist()]


def _padded(
    prompts: Sequence[Sequence[int]], pad: int, at: int
) -> tuple[Int[Tensor, "rows tokens"], Int[Tensor, "rows tokens"]]:
    """Token ids and mask, padded behind the first `at` tokens of each row: all answers begin at the same place."""
    longest = max(len(prompt) for prompt in prompts)
    gaps = [longest - len(prompt) for prompt in prompts]
    ids = [[*p[:at], *[pad] * gap, *p[at:]] for p, gap in zip(prompts, gaps, strict=True)]
    mask = [[1] * at + [0] * gap + [1] * (longest - gap - at) for gap in gaps]
    return torch.tensor(ids), torch.tensor(mask)


@contextmanager
def _no_generation_settings(model: AnyModel) -> Iterator[None]:
    """Take the model's own generation settings away: transformers fills in from them what a call leaves open."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    # PEFT hands the settings of the PeftModel, if it was given its own, on to the base.
    saved = [(each, each.generation_config) for each in (model, base) if "generation_config" in vars(each)]
    try:
        for each, _ in saved:
            each.generation_config = GenerationConfig()  # type: ignore[assignment]
        yield
    finally:
        for each, own in saved:
            each.generation_config = own


@contextmanager
def _contiguous_head_input(model: AnyModel) -> Iterator[None]:
    """Give the language-model head its hidden states in one piece.

    `generate` cuts the last position out of them, and torch multiplies such a slice with a frozen weight row by row,
    each with a copy of the weight.
    """
    head = model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(), *inputs[1:]))
    try:
        yield
    finally:
        handle.remove()


def _end_tokens(model: AnyModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end a text: the model's and the tokenizer's."""
    of_model = model.generation_config.eos_token_id if model.generation_config is not None else None
    ends = of_model if isinstance(of_model, list) else [of_model]
    return sorted({end for end in (*ends, tokenizer.eos_token_id) if end is not None})


def _until(tokens: list[int], ends: Sequence[int], keep_end: bool) -> list[int]:
    """`tokens` in front of the first that is among `ends`, or up to it."""
    return next((tokens[: i + keep_end] for i, token in enumerate(tokens) if token in ends), tokens)


def _record(task: Task, example: Example, output: str) -> dict[str, Any]:
    parsed = task.parse(output)
    return {
        "id": example.id,
        "prompt": example.prompt,
        "output": output,
        "parsed": parsed,
        "label": example.label,
        "correct": task.is_correct(parsed, example.label),
    }


def _progress_bar(shown: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("left"))
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), disable=not shown)
