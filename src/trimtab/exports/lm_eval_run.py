"""An exported task scored by lm-evaluation-harness on a model in memory: every adapter, without a file for it."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from trimtab.exports.lm_eval_scoring import METRIC
from trimtab.models import AnyModel


@dataclass(frozen=True)
class HarnessScore:
    """What lm-evaluation-harness says of a model on a task.

    Attributes:
        accuracy: the share of right answers.
        standard_error: of it, as the harness computes it: the standard deviation over the examples, n - 1 in its
            denominator, over sqrt(n); NaN of a single example.
        outputs: what the model wrote, in the order of the examples.
    """

    accuracy: float
    standard_error: float
    outputs: tuple[str, ...]


def score_with_lm_eval(
    model: AnyModel, tokenizer: PreTrainedTokenizerBase, folder: str | Path, *, batch_size: int = 8
) -> HarnessScore:
    """Let lm-evaluation-harness ask `model`, whatever adapters are on it, and score its answers.

    Args:
        model: in memory; adapters answer at their current strength.
        tokenizer: the model's.
        folder: a task that was exported in the format "lm-eval".
        batch_size: prompts in a batch.

    Raises:
        ModuleNotFoundError: lm-eval is not installed.
        FileNotFoundError: `folder` holds no exported task.
    """
    try:
        harness: Any = importlib.import_module("lm_eval")
        models: Any = importlib.import_module("lm_eval.models.huggingface")
        tasks: Any = importlib.import_module("lm_eval.tasks")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("The harness is not installed. Run: pip install 'trimtab[eval]'") from error
    found = sorted(Path(folder).glob("trimtab_*.yaml"))
    if not found:
        raise FileNotFoundError(f"{folder} holds no exported task. Write one: trimtab export lm-eval --out {folder}")
    name = found[0].stem
    results = harness.simple_evaluate(
        model=models.HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size),
        tasks=[name],
        task_manager=tasks.TaskManager(include_path=str(folder), include_defaults=False),
    )
    samples = sorted(results["samples"][name], key=lambda sample: sample["doc_id"])
    numbers = results["results"][name]
    return HarnessScore(
        accuracy=float(numbers[f"{METRIC},trimtab"]),
        # The harness says "N/A" of a single example.
        standard_error=float(numbers[f"{METRIC}_stderr,trimtab"]) if len(samples) > 1 else math.nan,
        outputs=tuple(str(sample["resps"][0][0]) for sample in samples),
    )
