"""The low-rank update in half precision, on any stream and on some tokens: bits, dtypes and shapes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from interventions.low_rank_formula import CHOICES, D, each_grad_mode, factors, reference, some_tokens
from trimtab.interventions.low_rank_update import FEW_TOKENS, low_rank_update


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_few_tokens_as_many(dtype: torch.dtype) -> None:
    """Decoding takes a shorter way with few tokens: the numbers are those of the long way, but for roundings."""
    h, down, up, bias = factors(True, torch.float32, (FEW_TOKENS + 1,))
    options = {"activation": "silu", "normalize": True, "tokens": torch.arange(FEW_TOKENS + 1) % 3 > 0}
    h = h.to(dtype)
    with torch.no_grad():
        many = low_rank_update(h, down, up, bias, **options)[1:]
        options["tokens"] = options["tokens"][1:]
        few = low_rank_update(h[1:], down, up, bias, **options)
    rounding = torch.finfo(dtype).eps
    torch.testing.assert_close(few, many, rtol=8 * rounding, atol=8 * rounding)


@pytest.mark.parametrize("shape", [(), (4,), (2, 5), (2, 3, 4)])
def test_any_leading_dimensions(shape: tuple[int, ...]) -> None:
    """(width,), (tokens, width), (rows, tokens, width) and more are all streams."""
    h, down, up, bias = factors(True, shape=shape)
    expected = reference(h, down, up, bias, strength=1.0, tokens=None, activation="silu", normalize=True)
    torch.testing.assert_close(low_rank_update(h, down, up, bias, activation="silu", normalize=True), expected)


def test_a_transposed_stream() -> None:
    """A stream that is not contiguous is steered and differentiated like its contiguous copy."""
    h, down, up, _ = factors(False)
    strided = h.transpose(0, 1).contiguous().transpose(0, 1)
    assert not strided.is_contiguous()
    for stream in (strided, h):
        stream.requires_grad_()
        low_rank_update(stream, down, up, normalize=True).square().sum().backward()
    torch.testing.assert_close(strided.grad, h.grad)


def test_the_stream_is_not_changed() -> None:
    """The update returns a new tensor and leaves h and the factors as they were."""
    tensors = factors(True)
    before = [t.clone() for t in tensors]
    result = low_rank_update(*tensors)
    assert all(torch.equal(t, b) for t, b in zip(tensors, before, strict=True))
    assert result.data_ptr() != tensors[0].data_ptr()


@each_grad_mode
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tokens_that_are_not_selected_keep_their_bits(dtype: torch.dtype, gradients: bool) -> None:
    """Outside the mask the result is h bit for bit, in every dtype, beside a massive activation too."""
    h, down, up, bias = factors(True, dtype, (3, 7))
    h[0, 0] *= 1000
    tokens = some_tokens((3, 7))
    for options in ({}, {"activation": "silu"}, {"normalize": True}):
        with torch.set_grad_enabled(gradients):
            steered = low_rank_update(h, down, up, bias, strength=3.0, tokens=tokens, **options)
        assert torch.equal(steered[~tokens], h[~tokens])
        assert not torch.isclose(steered[tokens], h[tokens]).all(-1).any()


def test_garbage_in_padding_stays_in_padding() -> None:
    """An overflow on a token that is not selected reaches neither other tokens nor any gradient."""
    h, down, up, bias = (t.requires_grad_() for t in factors(True, torch.float16, (1, 4)))
    tokens = torch.tensor([[False, True, True, True]])
    with torch.no_grad():
        h[0, 0] = 6e4 * down[0].sign()  # its product with W_down is beyond float16
    with torch.no_grad():
        assert torch.equal(low_rank_update(h, down, up, bias, tokens=tokens)[0, 0], h[0, 0])
    steered = low_rank_update(h, down, up, bias, tokens=tokens)
    assert torch.equal(steered[0, 0], h[0, 0])
    steered[tokens].float().sum().backward()
    for tensor in (h, down, up, bias):
        assert tensor.grad.isfinite().all()


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("garbage", [float("inf"), float("-inf"), float("nan")])
def test_a_stream_that_has_overflowed_in_padding(garbage: float, normalize: bool) -> None:
    """Infinity or NaN in h itself: all gradients are those of the same tokens without it."""
    tokens = torch.tensor([[False, True, True, True]])

    def gradients(value: float) -> list[Tensor]:
        torch.manual_seed(0)
        h, down, up, bias = factors(True, shape=(1, 4))
        h[0, 0, 2] = value
        tensors = [tensor.requires_grad_() for tensor in (h, down, up, bias)]
        steered = low_rank_update(*tensors, tokens=tokens, activation="silu", normalize=normalize)
        return list(torch.autograd.grad(steered[tokens].square().sum(), tensors))

    for found, wanted in zip(gradients(garbage), gradients(1.0), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize(("activation", "bias", "normalize", "masked"), CHOICES)
def test_a_bfloat16_stream_with_float32_factors(
    activation: str | None, bias: bool, normalize: bool, masked: bool
) -> None:
    """bfloat16 comes out, a few roundings from the float64 formula; the factors get float32 gradients."""
    h, down, up, b = factors(bias, torch.float32, (4, 9))
    h = h.bfloat16()
    options = {"strength": 1.0, "activation": activation, "normalize": normalize}
    options["tokens"] = some_tokens((4, 9)) if masked else None
    for parameter in (down, up, b):
        if parameter is not None:
            parameter.requires_grad_()
    steered = low_rank_update(h, down, up, b, **options)
    expected = reference(h, *(None if t is None else t.detach() for t in (down, up, b)), **options)
    assert steered.dtype == torch.bfloat16
    # One rounding (2^-9) of each of: h, the factors, y, f(y), the sum.
    assert (steered.double() - expected).norm() / expected.norm() < 5 * 2**-9
    weights = torch.randn_like(expected)
    (steered.float() * weights).sum().backward()
    twins = [None if t is None else t.detach().double().requires_grad_() for t in (down, up, b)]
    (reference(h, *twins, **options) * weights).sum().backward()
    for parameter, twin in zip((down, up, b), twins, strict=True):
        if parameter is not None:
            assert parameter.grad.dtype == torch.float32
            assert (parameter.grad - twin.grad).norm() / twin.grad.norm() < 0.02


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_does_not_change_the_update(dtype: torch.dtype) -> None:
    """Inside autocast, result and gradients are those outside, bit for bit: the stream keeps its dtype."""
    results = []
    for enabled in (False, True):
        torch.manual_seed(1)
        h, down, up, bias = factors(True, torch.float32)
        tensors = [t.requires_grad_() for t in (h.to(dtype), down, up, bias)]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            steered = low_rank_update(*tensors, activation="silu", normalize=True)
            steered.backward(torch.ones_like(steered))
        assert steered.dtype == dtype
        results.append([steered, *(t.grad for t in tensors)])
    for plain, autocast in zip(*results, strict=True):
        assert torch.equal(plain, autocast)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_does_not_change_the_update_of_a_few_tokens(dtype: torch.dtype, normalize: bool) -> None:
    """Without gradients too, bit for bit: products in float32, not in autocast's dtype."""
    h, down, up, bias = factors(True, dtype, (3, 7))
    options = {"activation": "silu", "normalize": normalize, "tokens": some_tokens((3, 7))}
    with torch.no_grad():
        plain = low_rank_update(h, down.float(), up.float(), bias.float(), **options)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            autocast = low_rank_update(h, down.float(), up.float(), bias.float(), **options)
    assert plain.dtype == dtype
    assert torch.equal(autocast, plain)


@each_grad_mode
def test_shapes_pass_through_the_meta_device(gradients: bool) -> None:
    """Without values the result has the stream's shape and dtype, as tools that plan memory need it."""
    tensors = [t.to("meta") for t in factors(True, torch.bfloat16)]
    with torch.set_grad_enabled(gradients):
        steered = low_rank_update(*tensors, activation="silu", normalize=True)
    assert (steered.shape, steered.dtype, steered.device.type) == ((2, 5, D), torch.bfloat16, "meta")
