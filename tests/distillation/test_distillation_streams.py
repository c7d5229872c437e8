"""Layers that are run one at a time do what they do in the whole model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from distillation_teachers import base_model, lora_teacher, steered_teacher, texts
from peak_memory import growth
from tiny_models import FAMILIES, assert_same, fingerprint, tiny_model
from trimtab import SteeringConfig
from trimtab.distillation import DistillationSettings, distill
from trimtab.distillation.streams import BlockRunner, StoredStreams
from trimtab.distillation.texts import TextBatch, batches
from trimtab.sites import decoder_layers


def whole_pass(model: torch.nn.Module, batch: TextBatch) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The output of every layer, and the logits, of one ordinary forward pass."""
    seen: list[torch.Tensor] = []
    _, layers = decoder_layers(model)
    handles = [
        layer.register_forward_hook(lambda _, __, out: seen.append(out if isinstance(out, torch.Tensor) else out[0]))
        for layer in layers
    ]
    with torch.no_grad():
        logits = model(input_ids=batch.ids, attention_mask=batch.real.long(), use_cache=False).logits
    for handle in handles:
        handle.remove()
    return seen, logits


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_layers_one_by_one_are_the_whole_pass(family: str) -> None:
    """In every family: each layer on the stream of the one in front, then norm and head alone."""
    model = tiny_model(family)
    (batch,) = batches(texts(4), 1000, model.device)
    wanted, logits = whole_pass(model, batch)
    runner = BlockRunner(model)
    stream = None
    for index, each in enumerate(wanted):
        stream = runner.run(batch, index, index, stream)
        assert_close(stream, each)
    assert_close(runner.run(batch, 1, 2, wanted[0]), wanted[2])
    for first, given in ((0, None), (2, wanted[1]), (3, wanted[2])):
        assert_close(runner.logits(batch, batch.predicts, first, given), logits[batch.predicts])


def test_the_model_is_as_it_was_also_after_an_error() -> None:
    """Layers, hooks and attributes."""
    model = tiny_model("gemma3_text")
    before = fingerprint(model)
    runner = BlockRunner(model)
    (batch,) = batches(texts(3), 1000, model.device)
    runner.run(batch, 1, 1, torch.randn(*batch.ids.shape, 24))
    with pytest.raises(RuntimeError):
        runner.run(batch, 1, 1, torch.randn(*batch.ids.shape, 7))
    assert_same(fingerprint(model), before)


def test_an_adapter_of_the_tuned_model_is_part_of_its_stream() -> None:
    """A steering adapter acts once, on the layer that is run, and not on the stream that is handed over."""
    tuned = steered_teacher(tiny_model("llama"))
    (batch,) = batches(texts(4), 1000, tuned.device)
    wanted, _ = whole_pass(tuned, batch)
    runner = BlockRunner(tuned)
    stream = None
    for index, each in enumerate(wanted):
        stream = runner.run(batch, index, index, stream)
        assert_close(stream, each)


def test_the_runner_steers_as_an_adapter_does() -> None:
    """The base with interventions at hand against the model that carries them, from the start and from the middle."""
    base = tiny_model("llama")
    tuned = steered_teacher(base)
    _, layers = decoder_layers(tuned)
    steering = {index: layer.steering.intervention("default") for index, layer in enumerate(layers)}
    (batch,) = batches(texts(4), 1000, base.device)
    streams, logits = whole_pass(tuned, batch)
    runner = BlockRunner(base)
    assert_close(runner.logits(batch, batch.predicts, steering=steering), logits[batch.predicts])
    assert_close(runner.logits(batch, batch.predicts, 1, streams[0], steering), logits[batch.predicts])
    raw = runner.run(batch, 0, 1, steering=steering)
    assert_close(steering[1].steer(raw, 1.0), streams[1])


def test_a_lora_on_a_twin_leaves_the_base_alone() -> None:
    """The twin shares the weights' memory; the base computes what it did."""
    base = tiny_model("llama")
    (batch,) = batches(texts(2), 1000, base.device)
    _, before = whole_pass(base, batch)
    tuned = lora_teacher(base)
    assert torch.equal(whole_pass(base, batch)[1], before)
    assert not torch.equal(whole_pass(tuned, batch)[1], before)
    shared = {parameter.data_ptr() for parameter in base.parameters()}
    assert shared <= {parameter.data_ptr() for parameter in tuned.parameters()}


def test_batches_say_what_is_prompt_and_what_predicts() -> None:
    """Padding on the right; the last prompt token predicts the first token of the answer, its last one nothing."""
    (batch,) = batches(texts(2), 1000, torch.device("cpu"))
    longest, shortest = texts(2)[1], texts(2)[0]
    assert batch.ids[0].tolist() == [*longest.prompt, *longest.completion]
    assert batch.real.sum(1).tolist() == [len(longest), len(shortest)]
    assert batch.prompt.sum(1).tolist() == [len(longest.prompt), len(shortest.prompt)]
    first = len(shortest.prompt) - 1
    assert batch.predicts[1].nonzero().flatten().tolist() == [first, first + 1, first + 2]


def test_stored_streams_are_replaced(tmp_path: Path) -> None:
    """The last value of each batch, in its dtype, also while the one before is still read."""
    store = StoredStreams(tmp_path / "streams")
    first, second = torch.randn(2, 3, 4).bfloat16(), torch.randn(2, 3, 4).bfloat16()
    store[0] = first
    kept = store[0]
    store[0] = second
    assert torch.equal(kept, first)
    assert torch.equal(store[0], second)


@pytest.mark.parametrize("refinements", [0, 1])
def test_memory_does_not_grow_with_the_texts(refinements: int) -> None:
    """But for token ids and masks: by less than half a row of one of the three streams for each token."""

    def distilled(count: int) -> int:
        base, given = base_model("llama"), texts(count)
        settings = DistillationSettings(batch_tokens=60, refinements=refinements)
        distill(base, lora_teacher(base), given, SteeringConfig(r=2), settings)
        return sum(map(len, given))

    row = 24 * torch.float64.itemsize
    assert growth(distilled, (20, 80)) < row / 2
