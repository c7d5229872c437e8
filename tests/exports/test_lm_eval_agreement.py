"""lm-evaluation-harness itself, where it is installed: it agrees with us on answers, scores and logits."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model

from exports.vector_adapters import saved
from tiny_language import byte_tokenizer, tiny_model
from tiny_models import draw_adapters, token_ids
from trimtab import SteeringConfig
from trimtab.evaluation import evaluate
from trimtab.exports import Source, get_export
from trimtab.exports.lm_eval_run import score_with_lm_eval
from trimtab.tasks import Task, get_task

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def harness() -> Any:
    """The package; the test is skipped where it is not installed."""
    return pytest.importorskip("lm_eval", reason="lm-eval is not installed")


def tasks(folder: Path) -> list[Task]:
    """Published questions, and one of the user's own whose answer is the first letter, so that many are right."""
    rows = [{"prompt": f"{'ab' * i}\n", "completion": "aeiou"[i % 5]} for i in range(1, 31)]
    (folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = get_task(str(folder / "own.jsonl"), answer=r"(?s)\A.*?([a-z])", max_new_tokens=12)
    return [get_task("arc_challenge", data_dir=str(DATA / "arc_challenge")), own]


@pytest.mark.slow
def test_a_steered_model_in_memory_scores_alike(harness: Any, tmp_path: Path) -> None:
    """Every answer is the same text, hence the accuracy too; without the adapter they are others."""
    base = tiny_model(max_position_embeddings=1024)
    model = get_peft_model(base, SteeringConfig(r=2, init_weights=False, task_type="CAUSAL_LM")).eval()
    draw_adapters(model, scale=0.05)
    tokenizer = byte_tokenizer()
    for task in tasks(tmp_path):
        folder = tmp_path / task.name
        get_export("lm-eval").write(Source(task=task), folder)
        ours = evaluate(model, tokenizer, task, out=tmp_path / "records.jsonl", progress=False)
        records = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
        theirs = score_with_lm_eval(model, tokenizer, folder, batch_size=4)
        assert theirs.outputs == tuple(record["output"] for record in records)
        assert theirs.accuracy == pytest.approx(ours.accuracy.value)
        n = ours.accuracy.n
        assert theirs.standard_error == pytest.approx(ours.accuracy.standard_error * (n / (n - 1)) ** 0.5)
        with model.disable_adapter():
            assert score_with_lm_eval(model, tokenizer, folder).outputs != theirs.outputs


@pytest.mark.slow
def test_a_single_example_has_no_standard_error(harness: Any, tmp_path: Path) -> None:
    """The harness says "N/A" of it."""
    (tmp_path / "own.jsonl").write_text('{"prompt": "ab", "completion": "a"}\n')
    task = get_task(str(tmp_path / "own.jsonl"), max_new_tokens=2)
    get_export("lm-eval").write(Source(task=task), tmp_path / "task")
    score = score_with_lm_eval(tiny_model(max_position_embeddings=1024), byte_tokenizer(), tmp_path / "task")
    assert len(score.outputs) == 1
    assert math.isnan(score.standard_error)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_model_type_steered_gives_identical_logits(harness: Any, tmp_path: Path, dtype: str) -> None:
    """An exported 1-vec, loaded by the harness onto the plain base: bit for bit."""
    from lm_eval.models.hf_steered import SteeredModel

    model = saved(tmp_path, "llama", getattr(torch, dtype))
    byte_tokenizer().save_pretrained(tmp_path / "base")
    get_export("lm-eval-steered").write(Source(adapter=tmp_path / "adapter"), tmp_path / "steer.pt")
    theirs = SteeredModel(str(tmp_path / "base"), str(tmp_path / "steer.pt"), device="cpu", dtype=dtype)
    ids = token_ids(2, 7)
    with torch.no_grad():
        assert torch.equal(theirs._model_call(ids), model(input_ids=ids).logits)


def test_without_the_harness_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What to install."""
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ModuleNotFoundError, match=r"trimtab\[eval\]"):
        score_with_lm_eval(tiny_model(), byte_tokenizer(), tmp_path)
