"""JoLA: which heads are scaled, which are shifted and by what, learnt together (Lai et al., 2025)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trimtab.interventions.base import InterventionOptions
from trimtab.interventions.hard_concrete import open_probability, sampled_gates, settled_gates
from trimtab.interventions.per_head import PerHead

START = 1e-3
"""Standard deviation of the published start of a and b."""

FIRST_SHARE, DECAY = 0.1, 0.01
"""lambda = FIRST_SHARE exp(-DECAY t), the weight of the offsets' gates in the penalty after t optimiser steps."""


class JoLA(PerHead):
    """z_i <- (1 + g_i a_i) * z_i + k_i b_i  for each head i.

    a_i and b_i in R^head_dim start at N(0, 1e-3). g_i and k_i are hard-concrete gates (`hard_concrete.py`), one pair a
    head: drawn anew in each forward pass of training mode, settled in evaluation mode. Their log-odds start uniform in
    +- sqrt(6 / (heads + 1)), so a fresh gate is near 1/2. 2 head_dim + 2 parameters a head.

    The penalty closes gates. With t optimiser steps done, lambda = 0.1 exp(-0.01 t), and P the probability that a
    gate is open, averaged over the heads of all layers:

        coefficient * ( lambda mean P(k > 0) + (1 - lambda) mean P(g > 0) )

    The coefficient is 1 / heads if none is given, which makes it what the authors' code adds.
    """

    name = "jola"
    uses = frozenset({"penalty", "heads"})
    starts_as_noop = False
    stochastic = True

    def __init__(self, width: int, options: InterventionOptions) -> None:
        """Make a and b (selected heads, head_dim) and the log-odds of their gates (selected heads)."""
        super().__init__(width, options)
        selected = len(self.heads.selected)
        self.scale = nn.Parameter(torch.empty(selected, self.head_dim))
        self.bias = nn.Parameter(torch.empty(selected, self.head_dim))
        self.scale_gate = nn.Parameter(torch.empty(selected))
        self.bias_gate = nn.Parameter(torch.empty(selected))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The published start; a and b with deviation 1 where `init_weights` is False."""
        for edited in (self.scale, self.bias):
            nn.init.normal_(edited, std=START if self.options.init_weights else 1.0)
        bound = math.sqrt(6 / (self.heads.count + 1))
        for gate in (self.scale_gate, self.bias_gate):
            nn.init.uniform_(gate, -bound, bound)

    def edit(self) -> tuple[Float[Tensor, "selected head_dim"], Float[Tensor, "selected head_dim"]]:
        """g a and k b."""
        # In float32 at least: half precision has too few numbers near 0 and 1 to draw from.
        gates = sampled_gates if self.training else settled_gates
        g, k = (gates(_wide(log_odds))[:, None] for log_odds in (self.scale_gate, self.bias_gate))
        return g * self.scale, k * self.bias

    def penalty(self, step: int) -> Float[Tensor, ""] | None:
        """This layer's part of the sum over all layers."""
        coefficient = 1 / self.heads.count if self.options.penalty is None else self.options.penalty
        if not coefficient:
            return None
        share = FIRST_SHARE * math.exp(-DECAY * step)
        scales, biases = (open_probability(_wide(gate)).sum() for gate in (self.scale_gate, self.bias_gate))
        return coefficient / self.heads.total * (share * biases + (1 - share) * scales)

    def gates(self) -> tuple[Float[Tensor, " selected"], Float[Tensor, " selected"]]:
        """g and k of each selected head, as in evaluation mode."""
        return settled_gates(_wide(self.scale_gate.detach())), settled_gates(_wide(self.bias_gate.detach()))


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
