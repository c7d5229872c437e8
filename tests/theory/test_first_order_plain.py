"""The first-order formulas of a plain MLP behind a layer norm, on a layer of GPT-2's architecture."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from theory.model_layers import SIZES, like
from theory.perturbation import draw, error_slope
from tiny_models import tiny_model
from trimtab.theory.first_order import MlpWeights, steering_shift, weight_shift
from trimtab.theory.norms import layer_norm_shift


class Layer:
    """The second layer of a tiny GPT-2 in float64, without the biases of the MLP, which the formulas do not have."""

    def __init__(self) -> None:
        layer = tiny_model("gpt2").transformer.h[1].double().eval()
        self.norm, self.mlp = layer.ln_2, layer.mlp
        with torch.no_grad():
            self.norm.weight.uniform_(0.5, 1.5)
            self.norm.bias.normal_()
            for each in (self.mlp.c_fc, self.mlp.c_proj):
                each.weight.mul_(20)  # far from where GELU is a straight line
                each.bias.zero_()
        self.weights = MlpWeights(self.mlp.c_fc.weight.detach().T, self.mlp.c_proj.weight.detach().T)
        self.u = draw(9, 24)

    @torch.no_grad()
    def added(self, u: Tensor, weights: MlpWeights) -> Tensor:
        """MLP(norm(u)) with these weights, by the module itself."""
        changed = {"c_fc.weight": weights.up.T, "c_proj.weight": weights.down.T}
        return torch.func.functional_call(self.mlp, changed, self.norm(u))


@pytest.mark.parametrize("what", ["stream", "weights"])
def test_slopes_behind_a_layer_norm(what: str) -> None:
    """Steering the stream in front of the norm, and an update of both matrices: what is missed is of second order."""
    torch.manual_seed(0)
    layer = Layer()
    h, activation = layer.norm(layer.u).detach(), layer.mlp.act
    du, update = like(layer.u), MlpWeights(like(layer.weights.up), like(layer.weights.down))
    exact: Callable[[float], Tensor]
    if what == "stream":
        dh = layer_norm_shift(layer.u, du, layer.norm.weight.detach(), layer.norm.eps)
        shift = steering_shift(h, dh, layer.weights, activation)
        exact = lambda t: layer.added(layer.u + t * du, layer.weights)  # noqa: E731
    else:
        shift = weight_shift(h, layer.weights, update, activation)
        exact = lambda t: layer.added(  # noqa: E731
            layer.u, MlpWeights(layer.weights.up + t * update.up, layer.weights.down + t * update.down)
        )
    assert error_slope(exact, shift, SIZES) == pytest.approx(2, abs=0.1)
