"""Hidden states in padded batches, against prompts that are read one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from analysis.subjects import alone, prompts, steered
from tiny_models import FAMILIES, tiny_model
from trimtab.analysis.stream import Batch, at_sites, batches, hidden_states

SITES = ("block", "mlp", "attention", "mlp_input", "heads")


def test_batches_hold_each_token_once() -> None:
    """Every prompt once, its ids in front of the padding; the mask covers them, `kept` leaves out the first ones."""
    given = prompts()
    seen = {}
    for batch in batches(given, batch_tokens=30, skip_first=2):
        assert batch.ids.numel() <= 30
        for row, index in enumerate(batch.prompts):
            length = len(given[index])
            assert batch.ids[row, :length].tolist() == list(given[index])
            assert batch.mask[row].tolist() == [1] * length + [0] * (batch.ids.shape[1] - length)
            seen[index] = int(batch.kept[row].sum())
            assert not batch.kept[row, :2].any()
    assert seen == {index: len(prompt) - 2 for index, prompt in enumerate(given) if len(prompt) > 2}
    assert any(len(prompt) == 2 for prompt in given)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_changes_nothing(family: str) -> None:
    """At every site of every family the tokens of a padded batch are those of the prompts read alone."""
    model = tiny_model(family)
    hosts = at_sites(model, SITES)
    given = prompts(4, 9)
    (batch,) = batches(given, batch_tokens=1000, skip_first=1)
    with torch.no_grad():
        found = hidden_states(model, batch, hosts)
    names = {str(key): (host.module, host.side) for key, host in hosts.items()}
    expected = [alone(model, names, given[index]) for index in batch.prompts]
    for key, host in hosts.items():
        wanted = np.concatenate([each[str(key)][1:] for each in expected]) * host.multiplier
        assert_close(found[key].double().numpy(), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_are_the_hidden_states_of_transformers(family: str) -> None:
    """z of a layer is what transformers calls the next hidden state, and grows by attention and the MLP."""
    model = tiny_model(family)
    prompt = prompts(1, 9)[0] * 3
    (batch,) = batches([prompt], batch_tokens=1000)
    with torch.no_grad():
        found = hidden_states(model, batch, at_sites(model, ("block", "mlp", "attention")))
        recorded = model(input_ids=torch.tensor([prompt]), output_hidden_states=True).hidden_states
    for layer in (0, 1):
        assert_close(found["block", layer], recorded[layer + 1][0])
        added = found["attention", layer] + found["mlp", layer]
        assert_close(recorded[layer][0] + added, found["block", layer], atol=1e-4, rtol=1e-4)


def test_a_steered_block_is_read_behind_its_adapter() -> None:
    """The adapter's shift is part of what is read; with the adapter off it is not."""
    model = steered(layers=[1])
    (batch,) = batches(prompts(3), batch_tokens=1000)
    hosts = at_sites(model, ("block",), [1])
    with torch.no_grad():
        after = hidden_states(model, batch, hosts)["block", 1]
        with model.disable_adapter():
            before = hidden_states(model, batch, hosts)["block", 1]
        intervention = model.get_base_model().model.layers[1].steering.intervention("default")
        assert_close(after - before, before @ intervention.down.T @ intervention.up.T, atol=1e-4, rtol=1e-4)


def test_no_hook_is_left_behind() -> None:
    """Also when the model fails."""
    model = tiny_model()
    broken = Batch((0,), torch.full((1, 3), 10**6), torch.ones(1, 3, dtype=torch.long), torch.ones(1, 3) > 0)
    with pytest.raises(IndexError):
        hidden_states(model, broken, at_sites(model, ("block",)))
    assert not any(module._forward_hooks for module in model.modules())
