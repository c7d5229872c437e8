"""The paper's adapter: a low-rank map of the hidden state (paper, section 5.1)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from trimtab.interventions.activations import get_activation
from trimtab.interventions.base import Intervention, InterventionOptions, check_rank
from trimtab.interventions.low_rank_update import EPSILON, low_rank_update


class LowRank(Intervention):
    """shift(h) = W_up f(W_down x) + b,  x = h or h / rms(h).

    f is the identity ("linear") or an activation ("nonlinear"). `bias` and `normalize` are this library's,
    not the paper's. 2 d r parameters, d more with a bias. W_down starts Kaiming-uniform (a = sqrt 5) times
    `init_scale`, W_up and b at zero: a fresh adapter changes nothing. With `random_up` the factors change places: W_up
    starts as the transpose of such a W_down, W_down at zero.

    Raises:
        ValueError: a rank below 1 or above the width, or an unknown activation.
    """

    name = "low_rank"
    uses = frozenset({"rank", "activation", "bias", "normalize", "init_scale", "random_up"})
    written = ("up", "bias")
    read = ("down",)

    def __init__(self, width: int, options: InterventionOptions) -> None:
        """Make W_down (r, d), W_up (d, r) and b (d)."""
        super().__init__(width, options)
        check_rank(options.rank, width)
        get_activation(options.activation)
        self.down = nn.Parameter(torch.empty(options.rank, width))
        self.up = nn.Parameter(torch.empty(width, options.rank))
        self.bias = nn.Parameter(torch.empty(width)) if options.bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """W_down Kaiming-uniform; W_up and b zero, or random where `init_weights` is False; see `random_up`."""
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        with torch.no_grad():
            self.down.mul_(self.options.init_scale)
        for written in (self.up, self.bias):
            if written is not None:
                if self.options.init_weights:
                    nn.init.zeros_(written)
                else:
                    nn.init.normal_(written, std=1 / math.sqrt(self.options.rank))
        if self.options.random_up:
            with torch.no_grad():
                self.up.copy_(self.down.T)
                self.down.zero_()

    def reads(self, h: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """h, or h / rms(h) in float32."""
        if not self.options.normalize:
            return h
        wide = h.to(torch.promote_types(h.dtype, torch.float32))
        return wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + EPSILON)

    def steer(
        self,
        h: Float[Tensor, "*batch width"],
        strength: float,
        tokens: Bool[Tensor, "*batch"] | None = None,
    ) -> Float[Tensor, "*batch width"]:
        """One `addmm` on the stream; see `low_rank_update`."""
        return low_rank_update(
            h,
            self.down,
            self.up,
            self.bias,
            strength=strength,
            tokens=tokens,
            activation=self.options.activation,
            normalize=self.options.normalize,
        )
