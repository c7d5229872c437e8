"""The activations and their written-out derivatives."""

from __future__ import annotations

import pytest
import torch

from trimtab.interventions.activations import ACTIVATIONS, get_activation

REFERENCE = {
    "silu": lambda y: y / (1 + torch.exp(-y)),
    "gelu": lambda y: 0.5 * y * (1 + torch.erf(y / 2**0.5)),
    "relu": lambda y: torch.clamp(y, min=0),
    "tanh": lambda y: (torch.exp(y) - torch.exp(-y)) / (torch.exp(y) + torch.exp(-y)),
}


def test_the_activations_are_those_of_the_configuration() -> None:
    """The names that SteeringConfig documents are there, and no other."""
    assert sorted(ACTIVATIONS) == ["gelu", "relu", "silu", "tanh"]


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_values_are_the_textbook_formulas(name: str) -> None:
    """f agrees with its definition, written with exponentials, to the precision of float64."""
    y = torch.linspace(-8, 8, 321, dtype=torch.float64)
    torch.testing.assert_close(ACTIVATIONS[name].value(y), REFERENCE[name](y), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_derivatives_are_those_of_autograd(name: str) -> None:
    """f' agrees with autograd's derivative of f in float64, at zero and far out too."""
    y = torch.cat([torch.linspace(-8, 8, 321), torch.tensor([0.0, -60.0, 60.0])]).double().requires_grad_()
    activation = ACTIVATIONS[name]
    activation.value(y).sum().backward()
    torch.testing.assert_close(activation.derivative(y.detach()), y.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_derivatives_keep_the_dtype_and_stay_finite(name: str) -> None:
    """In bfloat16, f' of numbers as large as a massive activation's is finite and stays bfloat16."""
    derivative = ACTIVATIONS[name].derivative(torch.tensor([-2.3e4, -90.0, 0.0, 90.0, 2.3e4], dtype=torch.bfloat16))
    assert derivative.dtype == torch.bfloat16
    assert derivative.isfinite().all()


def test_none_is_the_identity_and_a_typo_is_an_error() -> None:
    """None stands for no activation; an unknown name raises and names the nearest."""
    assert get_activation(None) is None
    assert get_activation("silu").value is torch.nn.functional.silu
    with pytest.raises(ValueError, match=r"Unknown activation 'sillu'\. Did you mean 'silu'\?"):
        get_activation("sillu")
