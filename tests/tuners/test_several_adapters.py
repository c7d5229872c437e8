"""Several adapters in one model: switched, added, deleted, active together, and a different one for each row."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch import Tensor
from torch.testing import assert_close

from tiny_models import draw_adapters, steering_layers, tiny_model, token_ids
from trimtab import SteeringConfig, prompt_lengths, set_strength
from trimtab.sites import locate

IDS = token_ids(3, 8)
CONFIGS: dict[str, dict[str, Any]] = {
    "a": {"r": 3},
    "b": {"intervention": "vector", "strength": -0.5},
    "c": {"r": 2, "site": "mlp", "activation": "silu", "layers": [0, 2]},
    "d": {"r": 2, "site": "heads", "positions": "first_last(1,2)"},
}


def logits(model: Any, **options: Any) -> Tensor:
    """What the model says of IDS."""
    with torch.no_grad():
        return model(input_ids=IDS, **options).logits


def build(names: str = "abcd", name: str = "llama") -> Any:
    """A model with the adapters of these names, drawn at random; the first one is active."""
    first, *others = names
    model = get_peft_model(tiny_model(name), SteeringConfig(**CONFIGS[first]), adapter_name=first)
    for other in others:
        model.add_adapter(other, SteeringConfig(**CONFIGS[other]))
    for layer in steering_layers(model):
        for adapter, intervention in layer.steering_interventions.items():
            for i, parameter in enumerate(intervention.parameters()):
                generator = torch.Generator().manual_seed(10 * ord(adapter) + i)
                parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def alone(adapter: str, name: str = "llama") -> Tensor:
    """The logits of a model that has one adapter."""
    return logits(build(adapter, name))


def test_switching() -> None:
    """The active adapter is the only one that steers, whichever came first."""
    model = build()
    for adapter in ("c", "a", "d", "b"):
        model.set_adapter(adapter)
        assert model.active_adapters == [adapter]
        assert torch.equal(logits(model), alone(adapter)), adapter


def test_adding_does_not_switch() -> None:
    """A further adapter is not active, not trainable, and changes no logits."""
    model = build("a")
    before = logits(model)
    model.add_adapter("b", SteeringConfig(**CONFIGS["b"], init_weights=False))
    model.add_adapter("e", SteeringConfig(r=2, site="attention", init_weights=False))
    assert torch.equal(logits(model), before)
    assert {n.split(".")[-2] for n, p in model.named_parameters() if p.requires_grad} == {"a"}


def test_deleting() -> None:
    """A deleted adapter leaves no parameter; the others steer as before; the last one leaves the base."""
    model = build()
    model.set_adapter("c")
    model.delete_adapter("a")
    assert not [name for name, _ in model.named_parameters() if ".a." in name]
    assert torch.equal(logits(model), alone("c"))
    with pytest.raises(ValueError, match="a does not exist"):
        model.delete_adapter("a")
    for adapter in ("b", "c", "d"):
        model.delete_adapter(adapter)
    # PEFT's wrapper insists on an adapter; the model inside does not.
    assert torch.equal(logits(model.base_model.model), logits(tiny_model("llama")))


def test_deleting_the_active_adapter() -> None:
    """One of the others takes its place, the same one in all layers, though they have different sites."""
    model = build()
    model.set_adapter("b")
    model.delete_adapter("b")
    assert model.active_adapters == ["a"]
    assert torch.equal(logits(model), alone("a"))
    model.delete_adapter("a")
    assert model.active_adapters == ["c"]
    assert torch.equal(logits(model), alone("c"))
    model.base_model.set_adapter(["c", "d"])
    model.delete_adapter("c")
    assert torch.equal(logits(model), alone("d"))


def test_a_deleted_name_can_be_used_again() -> None:
    """Of the old adapter nothing is left: neither strength, nor positions, nor weights."""
    model = build("ab")
    model.delete_adapter("b")
    model.add_adapter("b", SteeringConfig(**CONFIGS["c"]))
    model.set_adapter("b")
    assert torch.equal(logits(model), logits(tiny_model("llama")))
    assert {layer.strengths.get("b", 1.0) for layer in steering_layers(model)} == {1.0}


def test_the_shifts_of_active_adapters_add_up() -> None:
    """Two adapters at one host: h + s_a shift_a(h) + s_b shift_b(h), both of the unsteered h, in any order."""
    model = build("ab")
    set_strength(model, 2.0, "a")
    host = locate(model.get_base_model(), "block")[0]
    module = model.get_base_model().get_submodule(host.module)
    kept: dict[str, Tensor] = {}
    module.register_forward_hook(lambda _, __, out: kept.update(before=out.clone()), prepend=True)
    module.register_forward_hook(lambda _, __, out: kept.update(after=out.clone()))
    model.base_model.set_adapter(["a", "b"])
    together = logits(model)
    interventions = module.steering.steering_interventions
    shift_a = torch.einsum("dr,rk,...k->...d", interventions["a"].up, interventions["a"].down, kept["before"])
    assert_close(kept["after"], kept["before"] + 2.0 * shift_a - 0.5 * interventions["b"].vector)
    model.base_model.set_adapter(["b", "a"])
    assert_close(logits(model), together)


def test_active_at_different_sites() -> None:
    """Adapters at different sites act one after the other, as the sites lie in the layer."""
    model = build("acd")
    model.base_model.set_adapter(["a", "c", "d"])
    everything = logits(model)
    for adapter in ("a", "c", "d"):
        set_strength(model, 0.0, adapter)
        assert (logits(model) - everything).abs().max() > 1e-3
        set_strength(model, 1.0, adapter)
    assert torch.equal(logits(model), everything)


def test_active_together_are_trained_together() -> None:
    """Each active adapter gets gradients, the others do not."""
    model = build()
    model.base_model.set_adapter(["a", "c"])
    model(input_ids=IDS, labels=IDS).loss.backward()
    trained = {name.split(".")[-2] for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {"a", "c"}


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt"])
def test_a_different_adapter_for_each_row(name: str) -> None:
    """Each row has the logits that its adapter alone gives it, to rounding; `__base__` is the base bit for bit."""
    rows = ["c", "__base__", "d"]
    model = build(name=name)
    mixed = logits(model, adapter_names=rows)
    assert torch.equal(mixed[1], logits(tiny_model(name))[1])
    for row in (0, 2):
        assert_close(mixed[row], alone(rows[row], name)[row], rtol=1e-5, atol=1e-6, msg=rows[row])
    assert torch.equal(logits(model), alone("a", name)), "the active adapter is as before"


@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 3, "num_return_sequences": 2}, {"cache_implementation": "static"}]
)
@pytest.mark.parametrize("name", ["llama", "opt"])
def test_generating_with_an_adapter_for_each_row(name: str, options: dict[str, Any]) -> None:
    """Greedily and with beams, each row is continued as by its adapter alone."""
    settings = {"max_new_tokens": 5, "eos_token_id": None, "pad_token_id": 0, "do_sample": False} | options
    rows = ["b", "__base__", "d"]
    mixed = build(name=name).generate(input_ids=IDS, adapter_names=rows, **settings)
    for row, adapter in enumerate(rows):
        model = tiny_model(name) if adapter == "__base__" else build(adapter, name)
        wanted = model.generate(input_ids=IDS[row : row + 1], **settings)
        count = len(wanted)
        assert torch.equal(mixed[row * count : (row + 1) * count], wanted), adapter


def test_rows_and_prompt_lengths() -> None:
    """Rows whose adapters have different positions, with lengths that the caller gives."""
    rows, lengths = ["d", "a", "d"], [3, 4, 6]
    with prompt_lengths(model := build(), lengths):
        mixed = logits(model, adapter_names=rows)
    for row, adapter in enumerate(rows):
        with prompt_lengths(model := build(adapter), lengths):
            assert torch.equal(mixed[row], logits(model)[row])


@pytest.mark.parametrize(
    ("rows", "message"),
    [(["a", "x", "b"], "non-existing adapter.*x"), (["a", "b"], "2|number of"), ([], "0|number of")],
)
def test_wrong_rows(rows: list[str], message: str) -> None:
    """An unknown name, or another number of names than rows, is an error, and the next call is as ever."""
    model = build()
    with pytest.raises(ValueError, match=message):
        logits(model, adapter_names=rows)
    assert torch.equal(logits(model), alone("a"))


def test_rows_are_not_for_training() -> None:
    """As for PEFT's methods, adapter_names in training is an error."""
    with pytest.raises(ValueError, match="training mode"):
        build().train()(input_ids=IDS, adapter_names=["a", "b", "c"])


def test_rows_are_forgotten_after_an_error() -> None:
    """A call that fails inside the model leaves no names behind."""
    model = build()
    with pytest.raises(IndexError):
        model(input_ids=IDS + 10_000, adapter_names=["a", "b", "c"])
    assert torch.equal(logits(model), alone("a"))


def test_by_transformers() -> None:
    """add_adapter, set_adapter (one or several), disable, enable and delete of transformers' own models."""
    model, base = tiny_model("llama"), logits(tiny_model("llama"))
    for adapter in "ac":
        model.add_adapter(SteeringConfig(**CONFIGS[adapter]), adapter)
    draw_adapters(model)
    steered = {}
    for names in ("a", "c", ["a", "c"]):
        model.set_adapter(names)
        steered[str(names)] = logits(model)
    assert len({float(value.sum()) for value in [base, *steered.values()]}) == 4
    model.disable_adapters()
    assert torch.equal(logits(model), base)
    model.enable_adapters()
    assert torch.equal(logits(model), steered["['a', 'c']"])
    model.delete_adapter("a")
    model.set_adapter("c")
    assert torch.equal(logits(model), steered["c"])
    model.delete_adapter("c")
    assert torch.equal(logits(model), base)
