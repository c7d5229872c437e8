"""One MLP of a real architecture in float64, with the norms around it and the tokens that it reads."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.testing import assert_close
from transformers import PreTrainedModel

from theory.perturbation import error_slope
from trimtab.theory.first_order import MlpWeights, steering_shift, weight_shift
from trimtab.theory.norms import rms_norm_shift

SIZES = np.logspace(-4, -2, 5)


@dataclass(frozen=True)
class Norm:
    """A family's RMS norm, computed by torch in float64: the families' own modules go through float32."""

    scale: Tensor
    epsilon: float

    @classmethod
    @torch.no_grad()
    def of(cls, module: nn.Module, gemma: bool, tokens: Tensor) -> Norm:
        """The norm that a module is, which is checked on the tokens that it reads."""
        if gemma:
            norm = cls(1 + module.weight.double(), module.eps)
        else:
            norm = cls(module.weight.double(), module.variance_epsilon)
        assert_close(norm(tokens), copy.deepcopy(module).double()(tokens), rtol=1e-5, atol=1e-5)
        return norm

    def __call__(self, u: Tensor) -> Tensor:
        """norm(u)."""
        return functional.rms_norm(u, (u.shape[-1],), self.scale, self.epsilon)

    def shift(self, u: Tensor, du: Tensor) -> Tensor:
        """What `trimtab.theory` says about a change of u."""
        return rms_norm_shift(u, du, self.scale, self.epsilon)


@dataclass(frozen=True)
class MlpWithNorms:
    """A Llama-like or Gemma-3-like MLP: module, norm in front, norm behind (or None), and the stream u (tokens, d)."""

    mlp: nn.Module
    before: Norm
    after: Norm | None
    u: Tensor

    @property
    def weights(self) -> MlpWeights:
        """The weights of the module."""
        projections = (self.mlp.up_proj, self.mlp.down_proj, self.mlp.gate_proj)
        return MlpWeights(*(projection.weight.detach() for projection in projections))

    @property
    def activation(self) -> Callable[[Tensor], Tensor]:
        """s of the module."""
        return self.mlp.act_fn

    @property
    def h(self) -> Tensor:
        """What the MLP reads."""
        return self.before(self.u)

    @torch.no_grad()
    def added(self, h: Tensor, weights: MlpWeights | None = None) -> Tensor:
        """What the stream gains, by the module itself, from an MLP input h and with other weights."""
        up, down, gate = self.weights if weights is None else weights
        changed = {"up_proj.weight": up, "down_proj.weight": down, "gate_proj.weight": gate}
        output = torch.func.functional_call(self.mlp, changed, h)
        return output if self.after is None else self.after(output)

    @torch.no_grad()
    def through_after(self, shift: Tensor) -> Tensor:
        """The first-order change of what the stream gains when the MLP's output changes by `shift`."""
        return shift if self.after is None else self.after.shift(self.mlp(self.h), shift)


@torch.no_grad()
def mlp_with_norms(model: PreTrainedModel, index: int, tokens: Tensor) -> MlpWithNorms:
    """The MLP of layer `index`, its norms, and the stream in front of it on `tokens` (1, n)."""
    layer = model.get_decoder().layers[index]
    gemma = hasattr(layer, "pre_feedforward_layernorm")
    before = layer.pre_feedforward_layernorm if gemma else layer.post_attention_layernorm
    kept: list[Tensor] = []
    handle = before.register_forward_pre_hook(lambda _, arguments: kept.append(arguments[0]))
    model.get_decoder()(input_ids=tokens, use_cache=False)
    handle.remove()
    mlp, u = copy.deepcopy(layer.mlp).double(), kept[0][0].double()
    norm = Norm.of(before, gemma, u)
    after = Norm.of(layer.post_feedforward_layernorm, gemma, mlp(norm(u))) if gemma else None
    return MlpWithNorms(mlp, norm, after, u)


def like(tensor: Tensor) -> Tensor:
    """A random direction, token by token (row by row), as long as the tensor's."""
    drawn = torch.randn_like(tensor)
    return drawn * (tensor.norm(dim=-1, keepdim=True) / drawn.norm(dim=-1, keepdim=True))


def first_order_slopes(layer: MlpWithNorms) -> dict[str, float]:
    """d log error / d log size in the layer itself: steering behind the norm, all weights, steering in front of it."""
    weights, activation, h = layer.weights, layer.activation, layer.h
    dh, du, update = like(h), like(layer.u), MlpWeights(*map(like, weights))
    moved = lambda t: MlpWeights(*(one + t * other for one, other in zip(weights, update, strict=True)))  # noqa: E731
    behind = layer.through_after(steering_shift(h, dh, weights, activation))
    tuned = layer.through_after(weight_shift(h, weights, update, activation))
    in_front = layer.through_after(steering_shift(h, layer.before.shift(layer.u, du), weights, activation))
    return {
        "behind the norm": error_slope(lambda t: layer.added(h + t * dh), behind, SIZES),
        "all weights": error_slope(lambda t: layer.added(h, moved(t)), tuned, SIZES),
        "in front of the norm": error_slope(lambda t: layer.added(layer.before(layer.u + t * du)), in_front, SIZES),
    }
