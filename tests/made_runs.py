"""Records of runs that never ran, for what reads results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimtab.methods import get_method
from trimtab.results import Environment, RunRecord

ENVIRONMENT = Environment({"torch": "2.8", "trl": None}, "3.11", "Linux", "cpu", "abc123", "trimtab sweep")
LLAMA = "meta-llama/Llama-3.2-1B"
_PARAMETERS = {"sft": 1_000_000, "lora": 4_500, "post-block": 420}


def made_run(
    method: str = "post-block",
    changes: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    rate: float = 1e-3,
    split: str = "test",
    correct: int = 50,
    n: int = 100,
    **fields: Any,
) -> RunRecord:
    """A finished run of `get_method(method, **changes)`; `fields` are any others of the record.

    Later calls have no later time: `finished` is ordered by split, rate and seed.
    """
    chosen = get_method(method, **{"learning_rate": rate, **(changes or {})})
    label = fields.pop("label", chosen.label)
    model, task = fields.get("model", LLAMA), fields.get("task", "boolq")
    name = f"{model}/{task}/{label}/{rate}/{seed}"
    p = correct / n
    given: dict[str, Any] = {
        "run": f"{name}/{split}",
        "training": name,
        "model": model,
        "task": task,
        "method": label,
        "family": chosen.family,
        "learning_rate": rate,
        "seed": seed,
        "split": split,
        "accuracy": p,
        "standard_error": (p * (1 - p) / n) ** 0.5,
        "correct": correct,
        "n": n,
        "unparsed": 0,
        "trainable_parameters": _PARAMETERS.get(method, 100),
        "model_parameters": 1_000_000,
        "steps": 50,
        "examples": 400,
        "tokens": 20_000,
        "loss": 0.5,
        "loss_curve": [[10.0 * (i + 1), 2.0 / (i + 1)] for i in range(5)],
        "training_seconds": 60.0,
        "evaluation_seconds": 10.0,
        "generated_tokens": 300,
        "peak_memory": 1_640_000_000,
        "dtype": "bfloat16",
        "examples_file": f"runs/{name}.jsonl",
        "finished": f"2026-01-0{1 + (split == 'test')}T00:00:{seed:02d}.{int(rate * 1e6):06d}+00:00",
        "configuration": {
            "model": model,
            "task": {"name": task},
            "method": {key: value for key, value in chosen.to_dict().items() if key not in ("name", "description")},
            "training": {"seed": seed, "examples": 400},
            "evaluation": {"split": split},
        },
        "environment": ENVIRONMENT,
    }
    return RunRecord(**{**given, **fields})
