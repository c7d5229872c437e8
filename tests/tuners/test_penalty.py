"""Penalties in a model's own loss: in training alone, of the active adapters, and with their schedule."""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from typing import Any

import pytest
import torch
from peft import get_peft_model

from tiny_language import tiny_model
from tiny_models import assert_same, fingerprint, steering_layers
from trimtab import SteeringConfig, penalty, set_penalty_step, set_strength
from tuners.penalised import COEFFICIENT, IDS, adapted, scalers


@pytest.mark.parametrize("as_tuple", [False, True])
def test_a_model_adds_it_to_its_own_loss(as_tuple: bool) -> None:
    """In training: loss = the base's loss + coefficient * sum |A|, as a tuple too; the gradients follow."""
    model, free = adapted().train(), adapted(0.0).train()
    for each in (model, free):
        (each(input_ids=IDS, labels=IDS, return_dict=not as_tuple)[0]).backward()
    total = COEFFICIENT * scalers(model).abs().sum()
    with torch.no_grad():
        losses = [each(input_ids=IDS, labels=IDS).loss for each in (model, free)]
    assert losses[0] == losses[1]  # without gradients there is no penalty
    loss = model(input_ids=IDS, labels=IDS).loss.detach()
    torch.testing.assert_close(loss, losses[1] + total)
    torch.testing.assert_close(penalty(model).detach(), total)
    for one, other in zip(model.parameters(), free.parameters(), strict=True):
        if one.requires_grad:
            torch.testing.assert_close(one.grad - other.grad, COEFFICIENT * one.detach().sign())


def test_evaluation_losses_stay_what_they_are() -> None:
    """In evaluation mode the loss is the model's, with gradients too, bit for bit; the logits always are."""
    model, free = adapted().eval(), adapted(0.0).eval()
    one, other = (each(input_ids=IDS, labels=IDS) for each in (model, free))
    assert torch.equal(one.loss, other.loss)
    assert torch.equal(model.train()(input_ids=IDS, labels=IDS).logits, other.logits)
    assert model(input_ids=IDS).get("loss") is None


@pytest.mark.parametrize("method", ["head_bias", "head_scale"])
def test_without_a_penalty_there_is_no_hook(method: str) -> None:
    """An adapter without a penalty, or with the coefficient 0, leaves the model's doors alone; the sum is 0."""
    options: dict[str, Any] = {"penalty": 0.0} if method == "head_scale" else {}
    base = tiny_model()
    before = fingerprint(base)
    get_peft_model(base, SteeringConfig(intervention=method, site="heads", **options))
    after = fingerprint(base)
    assert after[" is"] == before[" is"]
    assert set(after[" has"]) - set(before[" has"]) == {"peft_config"}  # PEFT's own
    assert penalty(base).item() == 0.0
    assert penalty(torch.nn.Linear(2, 2)).item() == 0.0


def test_the_hook_goes_with_the_adapter() -> None:
    """After unload the model's loss is its own again, and nothing of the hook is left."""
    base = tiny_model()
    before = fingerprint(base, trainable=False)
    model = get_peft_model(base, SteeringConfig(intervention="jola", site="heads"))
    model.add_adapter("second", SteeringConfig(intervention="jola", site="heads"))
    assert len(base._forward_hooks) == 1
    assert_same(before, fingerprint(model.unload(), trainable=False))


def test_only_active_trained_adapters_count() -> None:
    """Disabled, switched, at strength 0, frozen: no penalty; two active adapters: the sum."""
    model = adapted()
    one = penalty(model).item()
    assert one > 0
    with model.disable_adapter():
        assert penalty(model).item() == 0
    set_strength(model, 0.0)
    assert penalty(model).item() == 0
    set_strength(model, 1.0)
    model.add_adapter("second", SteeringConfig(intervention="head_scale", site="heads", penalty=COEFFICIENT))
    assert penalty(model).item() == pytest.approx(one)
    model.set_adapter("second")
    two = penalty(model).item()
    assert two != pytest.approx(one)
    model.base_model.set_adapter(["default", "second"])
    assert penalty(model).item() == pytest.approx(one + two)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert penalty(model).item() == 0


def test_copies_have_a_penalty_of_their_own() -> None:
    """A deep copy and a pickled one add their own scalers' penalty, and can be taken off."""
    model = adapted()
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301
        with torch.no_grad():
            for layer in steering_layers(again):
                layer.intervention("default").scale.fill_(1.0)
        total = COEFFICIENT * scalers(again).numel()
        assert penalty(again).item() == pytest.approx(total)
        loss = again.train()(input_ids=IDS, labels=IDS).loss
        assert loss.item() > total
        assert not again.unload()._forward_hooks
    assert penalty(model).item() < 1


def test_the_l1_norm_shrinks_scalers_that_nothing_needs() -> None:
    """Heads that the output projection does not read: with the penalty A goes to zero, without it stays."""
    after = {}
    for coefficient in (0.0, 0.01):
        model = adapted(coefficient).train()
        for layer in model.get_base_model().model.layers:
            layer.self_attn.o_proj.weight.data[:, 8:] = 0  # only head 0 is read
        start = scalers(model)
        optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
        for _ in range(30):
            model(input_ids=IDS, labels=IDS).loss.backward()
            optimiser.step()
            optimiser.zero_grad()
        after[coefficient] = scalers(model)
    assert torch.equal(after[0.0][:, 1:], start[:, 1:])
    # A step is 1e-4 long: 30 of them take every |A| of the start (up to 3e-3) to within one step of zero.
    large = start[:, 1:].abs() > 1e-3
    assert large.any()
    assert (after[0.01][:, 1:].abs() <= (start[:, 1:].abs() - 30e-4).clamp(min=0) + 1.01e-4).all()


def test_jolas_schedule_follows_the_step() -> None:
    """lambda = 0.1 exp(-0.01 t): the two halves of the penalty at t = 0 and later, seen from outside."""
    model = adapted(None, "jola")
    gates = [layer.intervention("default") for layer in steering_layers(model)]

    def mean_open(name: str) -> float:
        log_odds = torch.cat([getattr(each, name).detach() for each in gates]).double()
        return (1 / (1 + torch.exp(0.33 * math.log(0.1 / 1.1) - log_odds))).mean().item()

    for step in (0, 3, 400):
        set_penalty_step(model, step)
        share = 0.1 * math.exp(-0.01 * step)
        expected = (share * mean_open("bias_gate") + (1 - share) * mean_open("scale_gate")) / 4
        assert penalty(model).item() == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="step -1 must be at least 0"):
        set_penalty_step(model, -1)


def test_a_loss_computed_outside_is_told() -> None:
    """Log-probabilities for another loss than SFT's keep their values, and a warning says what is missing."""
    from trl.trainer.utils import add_fused_lm_head

    for outputs, own_loss in ((("log_probs", "entropy"), False), (("log_probs", "entropy", "is_top1"), True)):
        model, free = adapted().train(), adapted(0.0).train()
        for each in (model, free):
            add_fused_lm_head(each.get_base_model(), outputs=outputs)
        expected = free(input_ids=IDS, labels=IDS, fused_lm_head=True).log_probs
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = model(input_ids=IDS, labels=IDS, fused_lm_head=True).log_probs
        told = [str(each.message) for each in caught if "trimtab.penalty(model)" in str(each.message)]
        assert bool(told) != own_loss
        assert torch.equal(found, expected) != own_loss


def test_an_adapter_that_becomes_active_later_has_its_penalty_in_the_loss() -> None:
    """Added beside an active one and switched to afterwards, JoLA's penalty is in the loss as if it had been first."""
    torch.manual_seed(0)
    jola = SteeringConfig(intervention="jola", site="heads", penalty=1.0)
    later = get_peft_model(tiny_model(), SteeringConfig(r=2)).train()
    later.add_adapter("jola", jola)
    later.set_adapter("jola")
    torch.manual_seed(1)
    with_penalty = later(input_ids=IDS, labels=IDS).loss
    for layer in steering_layers(later):
        if "jola" in layer.steering_interventions:
            layer.intervention("jola").penalty = lambda step: None
    torch.manual_seed(1)
    assert with_penalty - later(input_ids=IDS, labels=IDS).loss > 0.01
