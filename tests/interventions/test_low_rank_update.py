"""The low-rank update against the same formula written with einsum in float64, forward and backward."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from interventions.low_rank_formula import CHOICES, R, each_grad_mode, factors, reference, some_tokens
from trimtab.interventions.low_rank_update import low_rank_update


@each_grad_mode
@pytest.mark.parametrize(("activation", "bias", "normalize", "masked"), CHOICES)
def test_the_forward_pass_is_the_formula(
    activation: str | None, bias: bool, normalize: bool, masked: bool, gradients: bool
) -> None:
    """Every combination of choices gives what einsum gives, to the precision of float64."""
    tensors = factors(bias)
    options = {"strength": 0.7, "activation": activation, "normalize": normalize}
    options["tokens"] = some_tokens() if masked else None
    with torch.set_grad_enabled(gradients):
        updated = low_rank_update(*tensors, **options)
    torch.testing.assert_close(updated, reference(*tensors, **options), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("activation", "bias", "normalize", "masked"), CHOICES)
def test_the_backward_pass_is_the_derivative(activation: str | None, bias: bool, normalize: bool, masked: bool) -> None:
    """Every combination of choices passes gradcheck in float64, for the stream and every parameter."""
    shape = (1, 3)
    tensors = [t.requires_grad_() for t in factors(bias, shape=shape) if t is not None]

    def update(*tensors: Tensor) -> Tensor:
        return low_rank_update(
            *tensors,
            strength=-1.3,
            tokens=some_tokens(shape) if masked else None,
            activation=activation,
            normalize=normalize,
        )

    assert torch.autograd.gradcheck(update, tensors)


INNER_CHOICES = [
    (activation, *switches, linear_rank)
    for activation in (None, "relu", "tanh")
    for switches in product([False, True], repeat=3)
    for linear_rank in (0, 1, R)
]
each_inner_choice = pytest.mark.parametrize(("activation", "bias", "normalize", "masked", "linear_rank"), INNER_CHOICES)


@each_grad_mode
@each_inner_choice
def test_a_bias_inside_and_numbers_that_pass_the_activation(
    activation: str | None, bias: bool, normalize: bool, masked: bool, linear_rank: int, gradients: bool
) -> None:
    """With a bias under f, and with f on the first numbers only, every combination gives what einsum gives."""
    tensors = factors(bias)
    options = {"strength": 0.7, "activation": activation, "normalize": normalize, "linear_rank": linear_rank}
    options |= {"tokens": some_tokens() if masked else None, "inner_bias": torch.randn(R, dtype=torch.float64)}
    with torch.set_grad_enabled(gradients):
        updated = low_rank_update(*tensors, **options)
    torch.testing.assert_close(updated, reference(*tensors, **options), rtol=1e-12, atol=1e-12)


@each_inner_choice
def test_the_backward_pass_with_a_bias_inside(
    activation: str | None, bias: bool, normalize: bool, masked: bool, linear_rank: int
) -> None:
    """Every combination passes gradcheck in float64, for the inner bias too, which gets its gradient alone as well."""
    shape = (1, 3)
    tensors = [t.requires_grad_() for t in factors(bias, shape=shape) if t is not None]
    inner = torch.randn(R, dtype=torch.float64, requires_grad=True)
    options: dict[str, Any] = {"strength": -1.3, "activation": activation, "normalize": normalize}
    options |= {"tokens": some_tokens(shape) if masked else None, "linear_rank": linear_rank}

    def update(inner: Tensor, *tensors: Tensor) -> Tensor:
        return low_rank_update(*tensors, inner_bias=inner, **options)

    assert torch.autograd.gradcheck(update, (inner, *tensors))
    (among_all,) = torch.autograd.grad(update(inner, *tensors).square().sum(), inner)
    (alone,) = torch.autograd.grad(update(inner, *(t.detach() for t in tensors)).square().sum(), inner)
    torch.testing.assert_close(alone, among_all, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "needed",
    [
        (True, False, False, False),
        (False, True, False, False),
        (False, False, True, False),
        (False, False, False, True),
    ],
)
def test_gradients_do_not_depend_on_who_asks(needed: tuple[bool, ...]) -> None:
    """One tensor alone that requires a gradient gets the one that it gets among all."""
    everybody, alone = factors(True), factors(True)
    alone = [t.detach().clone() for t in everybody]
    for tensor in everybody:
        tensor.requires_grad_()
    for tensor, needs in zip(alone, needed, strict=True):
        tensor.requires_grad_(needs)
    options = {"strength": 0.5, "tokens": some_tokens(), "activation": "gelu", "normalize": True}
    for tensors in (everybody, alone):
        low_rank_update(*tensors, **options).square().sum().backward()
    for all_of_them, one, needs in zip(everybody, alone, needed, strict=True):
        assert (one.grad is not None) == needs
        if needs:
            torch.testing.assert_close(one.grad, all_of_them.grad, rtol=1e-12, atol=1e-12)


def test_a_second_derivative_is_refused() -> None:
    """Differentiating the gradient is an error, not a wrong number."""
    tensors = [t.requires_grad_() for t in factors(False)[:3]]
    (grad,) = torch.autograd.grad(
        low_rank_update(*tensors, activation="tanh").square().sum(), tensors[0], create_graph=True
    )
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_strength_multiplies_the_shift() -> None:
    """z(s) - h is linear in s: minus two times the shift at s = -2, nothing at 0."""
    tensors = factors(True)
    h = tensors[0]
    shift = low_rank_update(*tensors, activation="tanh") - h
    for strength in (-2.0, 0.0, 0.25):
        torch.testing.assert_close(
            low_rank_update(*tensors, activation="tanh", strength=strength) - h, strength * shift
        )
