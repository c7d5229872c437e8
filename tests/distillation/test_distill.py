"""What distillation recovers, where the answer is known, and how near it comes where it is not."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch.testing import assert_close

from distillation_teachers import base_model, lora_teacher, maps, steered_teacher, texts
from tiny_models import steering_layers, tiny_model
from trimtab import SteeringConfig
from trimtab.distillation import DistillationResult, DistillationSettings, distill
from trimtab.distillation.streams import BlockRunner
from trimtab.distillation.texts import batches

PLAIN = {"weights": "equal", "answer_share": None, "ridge": 0.0}


def linear(r: int, **options: Any) -> SteeringConfig:
    """A linear map without bias of h itself, as the paper's."""
    return SteeringConfig(r=r, task_type="CAUSAL_LM", **options)


@pytest.mark.parametrize(
    "settings",
    [
        PLAIN,
        {"ridge": 0.0},
        {"ridge": 0.0, "metric": "logits"},
        {"ridge": 0.0, "metric": "gradient", "weights": "gradient"},
        {"ridge": 0.0, "refinements": 1},
        {"ridge": 0.0, "fitting": "tuned_stream"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_a_linear_adapter_is_recovered(settings: dict[str, Any]) -> None:
    """Where the tuned model IS the base with a linear map of rank 2 after every block, it is found again."""
    base = base_model()
    tuned = steered_teacher(base)
    adapted, result = distill(base, tuned, texts(), linear(2), DistillationSettings(**settings))
    for found, true in zip(maps(adapted), maps(tuned), strict=True):
        assert float((found - true).norm() / true.norm()) < 1e-8
    assert result.after["everywhere"] < 1e-12 < 1e-4 < result.before["everywhere"]
    assert all(layer["explained"] > 1 - 1e-10 for layer in result.layers)


def test_normalised_reading_bias_and_positions_are_recovered() -> None:
    """An adapter that reads h / rms(h), adds a constant, and leaves the first token and one layer alone."""
    base = base_model()
    options = {"normalize": True, "use_bias": True, "positions": "all_but_first(1)", "layers": [0, 2]}
    tuned = steered_teacher(base, **options)
    adapted, result = distill(base, tuned, texts(), linear(2, **options), DistillationSettings(ridge=0.0))
    for found, true in zip(steering_layers(adapted), steering_layers(tuned), strict=True):
        ours, theirs = found.intervention("default"), true.intervention("default")
        assert_close(ours.up @ ours.down, theirs.up @ theirs.down, rtol=1e-6, atol=1e-8)
        assert_close(ours.bias, theirs.bias, rtol=1e-6, atol=1e-8)
    assert [layer["layer"] for layer in result.layers] == [0, 2]


def test_the_plain_oracle_counts_shifts_twice() -> None:
    """Fitted in parallel, each layer repeats what those in front have done: sequential fitting is nearer."""
    base = base_model()
    tuned = steered_teacher(base)
    after = {}
    for fitting in ("parallel", "sequential"):
        settings = DistillationSettings(**{**PLAIN, "fitting": fitting})
        adapted, result = distill(base, tuned, texts(), linear(2), settings)
        after[fitting] = result.after["everywhere"]
        adapted.unload()
    assert after["sequential"] < 1e-3 * after["parallel"]


def test_a_lower_rank_is_the_eckart_young_optimum() -> None:
    """The first layer's map of rank 1 for a tuned map of rank 2 has the least error on the texts that it read."""
    base = base_model()
    tuned = steered_teacher(base)
    settings = DistillationSettings(**PLAIN, validation=0.01)  # one text is held out
    adapted, _ = distill(base, tuned, texts(), linear(1), settings)
    found = maps(adapted)[0]
    adapted.unload()
    runner = BlockRunner(base)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(settings.seed)).tolist()
    rows = []
    for batch in batches([texts()[index] for index in order[1:]], 512, base.device):
        rows.append(runner.run(batch, 0, 0)[batch.real])
    h = torch.cat(rows).numpy()
    shift = h @ maps(tuned)[0].numpy().T
    left_out = np.linalg.svd(shift, compute_uv=False)[1:]
    assert float(((shift - h @ found.numpy().T) ** 2).sum()) == pytest.approx(float((left_out**2).sum()), rel=1e-9)


def test_changed_biases_are_recovered_as_vectors() -> None:
    """A model fine-tuned in full whose MLPs' last biases moved, and nothing else: the vectors are those moves."""
    base = base_model()
    tuned = copy.deepcopy(base)
    moves = [0.2 * torch.randn(24, dtype=torch.float64) for _ in range(3)]
    with torch.no_grad():
        for block, move in zip(tuned.transformer.h, moves, strict=True):
            block.mlp.c_proj.bias += move
    config = SteeringConfig(intervention="vector", task_type="CAUSAL_LM")
    adapted, result = distill(base, tuned, texts(), config)
    for layer, move in zip(steering_layers(adapted), moves, strict=True):
        assert_close(layer.intervention("default").vector.detach(), move, rtol=0, atol=1e-10)
    assert result.parameters == 3 * 24


@pytest.mark.parametrize("family", ["llama", "gptj"])
def test_padding_and_batches_change_nothing(family: str) -> None:
    """One text a batch, or padded ones: the same maps, for all that is taken from texts."""
    found = []
    for batch_tokens in (1, 200):
        base = base_model(family)
        settings = DistillationSettings(metric="logits", ridge=1e-3, batch_tokens=batch_tokens)
        adapted, _ = distill(base, lora_teacher(base), texts(), linear(3), settings)
        found.append(maps(adapted))
    for one, other in zip(*found, strict=True):  # the metric is summed in float32
        assert_close(one, other, rtol=0, atol=1e-4 * float(one.abs().max()))


def test_a_lora_is_approached_and_more_so_by_a_higher_rank() -> None:
    """KL to the tuned model on held-out texts falls with the rank; the ridge is one of the grid."""
    base = base_model("llama")
    tuned = lora_teacher(base)
    after = {}
    for rank in (1, 8):
        adapted, result = distill(base, tuned, texts(80), linear(rank, normalize=True, use_bias=True))
        after[rank] = result.after["answers"]
        adapted.unload()
        assert result.texts == 64
        assert result.held_out == 16
    assert after[8] < after[1] < result.before["answers"]


def test_a_refinement_never_raises_the_divergence_it_is_judged_by() -> None:
    """On the held-out texts, where answers are predicted."""
    base = base_model("llama")
    tuned = lora_teacher(base)
    after = []
    for refinements in (0, 2):
        settings = DistillationSettings(refinements=refinements)
        adapted, result = distill(base, tuned, texts(60), linear(1), settings)
        after.append(result.after["answers"])
        adapted.unload()
    assert after[1] < after[0]
    assert len(result.refined) == 2
    assert result.refined[0] > 0


def test_the_adapter_is_saved_and_loaded_by_peft(tmp_path: Path) -> None:
    """The same logits from the saved adapter on a fresh base, and a report that is read back."""
    base = tiny_model("llama")
    adapted, result = distill(base, lora_teacher(base), texts())
    adapted.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny_model("llama"), tmp_path).eval()
    ids = torch.arange(3, 12)[None]
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, adapted(input_ids=ids).logits)
    result.save(tmp_path / "report.json")
    assert DistillationResult.load(tmp_path / "report.json") == result
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["settings"]["fitting"] == "sequential"
    assert str(result).count(" ± ") == 4
    for divergence in (content["before"], content["after"]):  # reports of before there were errors
        divergence.pop("answers_error"), divergence.pop("everywhere_error")
    older = str(DistillationResult.from_dict(content, tmp_path))
    assert older == re.sub(r" ± [\d.]+", "", str(result))


def test_half_precision() -> None:
    """A base in bfloat16 gets an adapter in float32 that brings it nearer to the tuned model."""
    base = tiny_model("llama").bfloat16()
    adapted, result = distill(base, lora_teacher(base), texts(60), linear(8))
    assert {layer.intervention("default").up.dtype for layer in steering_layers(adapted)} == {torch.float32}
    assert result.after["answers"] < result.before["answers"]
