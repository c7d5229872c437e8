"""The low-rank update of the stream as one differentiable operation, written for speed.

    y = W_down x,   x = h  or  h / rms(h)              (tokens, r)
    z = h + s * m * (W_up f(y) + b)                     (tokens, d)

m is 1 on the tokens that are steered and 0 elsewhere. The bias is one more column of W_up that reads the
constant 1, so the whole update is a single `addmm` on the stream, and the mask costs r numbers a token.

Backward, with g = dL/dz, U = [W_up, b] and a = [f(y), 1]:

    dL/dU = s g^T (m a)        dL/da = s m (g U)        dL/dy = f'(y) * dL/da[:r]
    dL/dW_down = dL/dy^T x     dL/dh = g + J_x^T W_down^T dL/dy

where J_x = I, or for x = h / rms(h):  J_x^T v = (v - x (x . v) / d) / rms(h). Here v = W_down^T dL/dy, so
x . v = y . dL/dy: r products a token instead of d. The linear part of dL/dh is again one `addmm` on g.

Autograd's own backward of the same formula makes one more tensor of the size of the stream and one more pass
over it in every layer; that is the reason for this file. Products run in the dtype of the stream (they
accumulate in float32), so a bfloat16 base with float32 factors never copies the stream to float32.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from trimtab.interventions.activations import get_activation

EPSILON = 1e-6
"""Added to the mean square before the root, as the norms of the model families do."""

FEW_TOKENS = 64
"""Up to this many tokens without gradients, the short way is the faster one (benchmarks/generation.py)."""


class _LowRankUpdate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        down: Tensor,
        up: Tensor,
        bias: Tensor | None,
        mask: Tensor | None,
        strength: float,
        activation: str | None,
        normalize: bool,
    ) -> Tensor:
        down_h, up_h = down.to(h.dtype), up.to(h.dtype)
        y = h @ down_h.T
        inverse_rms = None
        if normalize:
            norm = torch.linalg.vector_norm(h, dim=-1, keepdim=True, dtype=torch.promote_types(h.dtype, torch.float32))
            inverse_rms = torch.rsqrt(norm.square() / h.shape[-1] + EPSILON).to(h.dtype)
            y = y * inverse_rms
        if mask is not None:
            # Filled, not multiplied: what overflows on an unsteered token (padding) must not become 0 * inf.
            y = y.masked_fill(~mask, 0)
        function = get_activation(activation)
        a = y if function is None else function.value(y)
        if bias is not None:
            a = torch.cat([a, a.new_ones(a.shape[0], 1)], dim=-1)
            up_h = torch.cat([up_h, bias.to(h.dtype)[:, None]], dim=-1)
        if mask is not None:
            a = a.masked_fill(~mask, 0)
        ctx.save_for_backward(h, y, a, down_h, up_h, inverse_rms, mask)
        ctx.strength, ctx.function, ctx.has_bias = strength, function, bias is not None
        ctx.dtypes = (down.dtype, up.dtype, None if bias is None else bias.dtype)
        return torch.addmm(h, a, up_h.T, alpha=strength)

    @staticmethod
    @once_differentiable  # y and a are saved as numbers: a second derivative through them would be wrong
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        with _without_autocast(grad):
            return _LowRankUpdate._gradients(ctx, grad)

    @staticmethod
    def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        h, y, a, down_h, up_h, inverse_rms, mask = ctx.saved_tensors
        down_dtype, up_dtype, bias_dtype = ctx.dtypes
        needs_h, needs_down, needs_up, needs_bias = ctx.needs_input_grad[:4]
        rank = down_h.shape[0]

        grad_h = grad_down = grad_up = grad_bias = None
        if needs_up or needs_bias:
            grad_full = (grad.T @ a).mul_(ctx.strength)
            grad_up = grad_full[:, :rank].to(up_dtype)
            grad_bias = grad_full[:, rank].to(bias_dtype) if ctx.has_bias else None
        if needs_h or needs_down:
            grad_y = (grad @ up_h[:, :rank]).mul_(ctx.strength)
            if mask is not None:
                grad_y = grad_y.masked_fill(~mask, 0)
            if ctx.function is not None:
                grad_y = grad_y * ctx.function.derivative(y)
            # d/dh of W_down h, before the normalisation's own term
            grad_read = grad_y if inverse_rms is None else grad_y * inverse_rms
            if needs_down:
                grad_down = (grad_read.T @ h).to(down_dtype)
            if needs_h:
                grad_h = torch.addmm(grad, grad_read, down_h)
                if inverse_rms is not None:
                    radial = (y * grad_y).sum(-1, keepdim=True) * inverse_rms.square() / h.shape[-1]
                    grad_h.addcmul_(h, radial, value=-1)
        return grad_h, grad_down, grad_up, grad_bias, None, None, None, None


def _without_autocast(tensor: Tensor) -> AbstractContextManager[Any]:
    """No autocast on the tensor's device: the products stay in the dtype of the stream, both ways."""
    device = tensor.device.type
    # Entering it costs more than the update of one token; and "meta" has none to enter.
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return nullcontext()
    return torch.autocast(device_type=device, enabled=False)


def low_rank_update(
    h: Float[Tensor, "*batch width"],
    down: Float[Tensor, "rank width"],
    up: Float[Tensor, "width rank"],
    bias: Float[Tensor, " width"] | None = None,
    *,
    strength: float = 1.0,
    tokens: Bool[Tensor, "*batch"] | None = None,
    activation: str | None = None,
    normalize: bool = False,
) -> Float[Tensor, "*batch width"]:
    """h + strength * (up f(down x) + bias) on `tokens`, with x = h or h / rms(h).

    Args:
        h: hidden states, any leading dimensions.
        down: W_down, the reading side.
        up: W_up, the writing side.
        bias: a constant part of the shift, or None.
        strength: s, a plain number (not differentiated).
        tokens: which tokens are steered; None is all of them.
        activation: name of f, or None for the identity.
        normalize: read h / rms(h).

    Returns:
        A new tensor of h's shape and dtype; h itself is not changed.
    """
    flat = h.reshape(-1, h.shape[-1])
    mask = None if tokens is None else tokens.reshape(-1, 1)
    short = flat.shape[0] <= FEW_TOKENS and not torch.is_grad_enabled()
    update = _update_few_tokens if short else _LowRankUpdate.apply
    with _without_autocast(h):
        updated = update(flat, down, up, bias, mask, strength, activation, normalize)
    return updated.view(h.shape)


def _update_few_tokens(
    h: Tensor,
    down: Tensor,
    up: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    strength: float,
    activation: str | None,
    normalize: bool,
) -> Tensor:
    """The forward formula in float32, without what a backward pass needs: for decoding, one token at a time.

    A few tokens of the stream are smaller than the factors, so it is the tokens that are converted.
    """
    wide = torch.promote_types(h.dtype, torch.float32)
    x = h.to(wide)
    a = x @ down.to(wide).T
    if normalize:
        a = a * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPSILON)
    function = get_activation(activation)
    if function is not None:
        a = function.value(a)
    if mask is not None:
        a = a.masked_fill(~mask, 0)
    updated = torch.addmm(x, a, up.to(wide).T, alpha=strength)
    if bias is not None:
        shift = strength * bias.to(wide)
        updated = updated + (shift if mask is None else mask * shift)
    return updated.to(h.dtype)
