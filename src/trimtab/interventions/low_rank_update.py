"""The low-rank update of the stream as one differentiable operation, written for speed.

    y = W_down x + c,   x = h  or  h / rms(h)          (tokens, r)
    z = h + s * m * (W_up f(y) + b)                     (tokens, d)

m is 1 on the tokens that are steered and 0 elsewhere. The bias is one more column of W_up that reads the
constant 1, so the whole update is a single `addmm` on the stream, and the mask costs r numbers a token.

Backward, with g = dL/dz, U = [W_up, b] and a = [f(y), 1]:

    dL/dU = s g^T (m a)        dL/da = s m (g U)        dL/dy = f'(y) * dL/da[:r]
    dL/dW_down = dL/dy^T x     dL/dc = sum dL/dy        dL/dh = g + J_x^T W_down^T dL/dy

where J_x = I, or for x = h / rms(h):  J_x^T v = (v - x (x . v) / d) / rms(h). Here v = W_down^T dL/dy, so
x . v = (y - c) . dL/dy: r products a token instead of d. The linear part of dL/dh is again one `addmm` on g.

Autograd's own backward of the same formula makes one more tensor of the size of the stream and one more pass
over it in every layer; that is the reason for this file. Products run in the dtype of the stream (they
accumulate in float32), so a bfloat16 base with float32 factors never copies the stream to float32; a few tokens
without gradients go a shorter way, in float32.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from trimtab.interventions.activations import Activation, get_activation

EPSILON = 1e-6
"""Added to the mean square before the root, as the norms of the model families do."""

FEW_TOKENS = 64
"""Up to this many tokens without gradients go the short way."""


class _LowRankUpdate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        down: Tensor,
        up: Tensor,
        bias: Tensor | None,
        inner_bias: Tensor | None,
        mask: Tensor | None,
        strength: float,
        activation: str | None,
        linear_rank: int,
        normalize: bool,
    ) -> Tensor:
        down_h, up_h = down.to(h.dtype), up.to(h.dtype)
        inner_h = None if inner_bias is None else inner_bias.to(h.dtype)
        y = linear(h, down_h, None if normalize else inner_h)
        inverse_rms = None
        if normalize:
            norm = torch.linalg.vector_norm(h, dim=-1, keepdim=True, dtype=torch.promote_types(h.dtype, torch.float32))
            inverse_rms = torch.rsqrt(norm.square() / h.shape[-1] + EPSILON).to(h.dtype)
            y = y * inverse_rms if inner_h is None else y * inverse_rms + inner_h
        ctx.finite = mask is None or _is_finite(y)
        if mask is not None:
            # Filled, not multiplied: what overflows on an unsteered token (padding) must not become 0 * inf.
            y = y.masked_fill(~mask, 0)
        function = get_activation(activation)
        a = _activated(y, function, linear_rank)
        if bias is not None:
            a = torch.cat([a, a.new_ones(a.shape[0], 1)], dim=-1)
            up_h = torch.cat([up_h, bias.to(h.dtype)[:, None]], dim=-1)
        if mask is not None:
            a = a.masked_fill(~mask, 0)
        ctx.save_for_backward(h, y, a, down_h, up_h, inner_h, inverse_rms, mask)
        ctx.strength, ctx.function, ctx.linear_rank, ctx.has_bias = strength, function, linear_rank, bias is not None
        ctx.dtypes = tuple(None if each is None else each.dtype for each in (down, up, bias, inner_bias))
        return torch.addmm(h, a, up_h.T, alpha=strength)

    @staticmethod
    @once_differentiable  # y and a are saved as numbers: a second derivative through them would be wrong
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        with _without_autocast(grad):
            return _LowRankUpdate._gradients(ctx, grad)

    @staticmethod
    def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        h, y, a, down_h, up_h, inner_h, inverse_rms, mask = ctx.saved_tensors
        down_dtype, up_dtype, bias_dtype, inner_dtype = ctx.dtypes
        needs_h, needs_down, needs_up, needs_bias, needs_inner = ctx.needs_input_grad[:5]
        rank = down_h.shape[0]
        if not ctx.finite:  # nor may h itself, which is multiplied by gradients that are zero there
            h = h.masked_fill(~mask, 0)
            inverse_rms = None if inverse_rms is None else inverse_rms.masked_fill(~mask, 0)

        grad_h = grad_down = grad_up = grad_bias = grad_inner = None
        if needs_up or needs_bias:
            grad_full = (grad.T @ a).mul_(ctx.strength)
            grad_up = grad_full[:, :rank].to(up_dtype)
            grad_bias = grad_full[:, rank].to(bias_dtype) if ctx.has_bias else None
        if needs_h or needs_down or needs_inner:
            grad_y = (grad @ up_h[:, :rank]).mul_(ctx.strength)
            if mask is not None:
                grad_y = grad_y.masked_fill(~mask, 0)
            if ctx.function is not None:
                curved = rank - ctx.linear_rank
                grad_y[:, :curved] *= ctx.function.derivative(y[:, :curved])
            if needs_inner:
                grad_inner = grad_y.sum(0).to(inner_dtype)
            # d/dh of W_down h, before the normalisation's own term
            grad_read = grad_y if inverse_rms is None else grad_y * inverse_rms
            if needs_down:
                grad_down = (grad_read.T @ h).to(down_dtype)
            if needs_h:
                grad_h = torch.addmm(grad, grad_read, down_h)
                if inverse_rms is not None:
                    read = y if inner_h is None else y - inner_h
                    radial = (read * grad_y).sum(-1, keepdim=True) * inverse_rms.square() / h.shape[-1]
                    grad_h.addcmul_(h, radial, value=-1)
        return grad_h, grad_down, grad_up, grad_bias, grad_inner, None, None, None, None, None


def _is_finite(y: Tensor) -> bool:
    """Whether h is known to be finite by its product with W_down.

    On a CPU a look at r numbers a token saves a pass over the stream, to clean h. Elsewhere to look is to wait for the
    device, which costs more than the pass; and a graph that is compiled cannot branch.
    """
    return y.device.type == "cpu" and not torch.compiler.is_compiling() and bool(y.isfinite().all())


def _activated(y: Tensor, function: Activation | None, linear_rank: int) -> Tensor:
    """f(y), but for the last `linear_rank` columns, which stay as they are."""
    if function is None:
        return y
    if not linear_rank:
        return function.value(y)
    return torch.cat([function.value(y[..., :-linear_rank]), y[..., -linear_rank:]], dim=-1)


def _without_autocast(tensor: Tensor) -> AbstractContextManager[Any]:
    """No autocast on the tensor's device: the products stay in the dtype of the stream, both ways."""
    device = tensor.device.type
    # "meta" has none to enter.
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return nullcontext()
    return torch.autocast(device_type=device, enabled=False)


def low_rank_update(
    h: Float[Tensor, "*batch width"],
    down: Float[Tensor, "rank width"],
    up: Float[Tensor, "width rank"],
    bias: Float[Tensor, " width"] | None = None,
    *,
    inner_bias: Float[Tensor, " rank"] | None = None,
    strength: float = 1.0,
    tokens: Bool[Tensor, "*batch"] | None = None,
    activation: str | None = None,
    linear_rank: int = 0,
    normalize: bool = False,
) -> Float[Tensor, "*batch width"]:
    """h + strength * (up f(down x + inner_bias) + bias) on `tokens`, with x = h or h / rms(h).

    Args:
        h: hidden states, any leading dimensions.
        down: W_down, the reading side.
        up: W_up, the writing side.
        bias: a constant part of the shift, or None.
        inner_bias: c, a constant part of what f reads, or None.
        strength: s, a plain number (not differentiated).
        tokens: which tokens are steered; None is all of them.
        activation: name of f, or None for the identity.
        linear_rank: of the rank, how many of the last numbers go past f; 0 <= linear_rank <= rank.
        normalize: read h / rms(h).

    Returns:
        A new tensor of h's shape and dtype; h itself is not changed.
    """
    if h.numel() <= FEW_TOKENS * h.shape[-1] and not torch.is_grad_enabled():
        return _update_few_tokens(h, down, up, bias, inner_bias, tokens, strength, activation, linear_rank, normalize)
    rules = (strength, activation, linear_rank, normalize)
    with _without_autocast(h):
        flat, mask = h.reshape(-1, h.shape[-1]), None if tokens is None else tokens.reshape(-1, 1)
        updated: Tensor = _LowRankUpdate.apply(flat, down, up, bias, inner_bias, mask, *rules)
        return updated.view(h.shape)


def _update_few_tokens(
    h: Tensor,
    down: Tensor,
    up: Tensor,
    bias: Tensor | None,
    inner_bias: Tensor | None,
    tokens: Tensor | None,
    strength: float,
    activation: str | None,
    linear_rank: int,
    normalize: bool,
) -> Tensor:
    """The forward formula in float32, without what a backward pass needs: for decoding, one token at a time.

    A few tokens of the stream are smaller than the factors, so it is the tokens that are converted. Between the large
    products of a model, which fill its caches, each call costs more than its arithmetic, a view and a conversion to
    the dtype that is there too: there are as few as can be.
    """
    wide = torch.float64 if h.dtype is torch.float64 else torch.float32
    down = down if down.dtype is wide else down.to(wide)
    up = up if up.dtype is wide else up.to(wide)
    bias = bias if bias is None or bias.dtype is wide else bias.to(wide)
    inner_bias = inner_bias if inner_bias is None or inner_bias.dtype is wide else inner_bias.to(wide)
    x = h.to(wide)
    a = linear(x, down, None if normalize else inner_bias)
    if a.dtype is not wide:
        # Autocast. To ask before takes the name of the device, which between large products costs as much as this one.
        with _without_autocast(h):
            return _update_few_tokens(
                h, down, up, bias, inner_bias, tokens, strength, activation, linear_rank, normalize
            )
    if normalize:
        a = a * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPSILON)
        if inner_bias is not None:
            a = a + inner_bias
    if activation is not None:
        a = _activated(a, get_activation(activation), linear_rank)
    shift = linear(a, up, bias)
    if tokens is not None:
        shift = shift.masked_fill(~tokens[..., None], 0)
    return torch.add(x, shift, alpha=strength).to(h.dtype)  # the sum in float32, rounded once
