"""How much the bounds of appendix E overstate: the median of bound / actual, for random draws and layers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from _theory_layers import MlpWithNorms
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from trimtab.theory.error_propagation import (
    ACTIVATION_CONSTANTS,
    AttentionWeights,
    attention_error_bound,
    mlp_error_bound,
    norm_error_bound,
)
from trimtab.theory.first_order import MlpWeights, mlp_output

CASES = {"δ only": (True, False), "e only": (False, True), "both": (True, True)}
"""Which of the two distances, of the stream and of the weights, is not zero."""
_SIZE = 0.01
_WIDTHS, _TOKENS, _HEADS = (8, 64, 256), 32, 4

Ratios = dict[str, float]
Attend = Callable[[Tensor, AttentionWeights], Tensor]


def random_looseness(draws: int) -> dict[str, dict[str, Ratios]]:
    """A norm, a gated MLP and attention with random weights, by width; δ = e = 0.01."""
    rows: dict[str, dict[str, Ratios]] = {"RMS norm": {}, "gated MLP": {}, "attention, 4 heads": {}}
    for width in _WIDTHS:
        found: list[dict[str, dict[str, Tensor]]] = []
        for _ in range(draws):
            u, depth = _draw(_TOKENS, width), width // _HEADS
            mlp = MlpWeights(_weight(4 * width, width), _weight(width, 4 * width), _weight(4 * width, width))
            attention = AttentionWeights(*(_weight(_HEADS, depth, width) for _ in range(3)), _weight(width, width))
            attend = lambda x, weights, depth=depth: _attended(x, weights, 0.0, depth**-0.5, causal=False)  # noqa: E731
            found.append(
                {
                    "RMS norm": {"δ only": _norm_ratio(u)},
                    "gated MLP": _mlp_ratios(u, mlp, 0.0, _SIZE, _SIZE),
                    "attention, 4 heads": _attention_ratios(u, attention, attend, 0.0, depth**-0.5, _SIZE, _SIZE),
                }
            )
        for row, by_width in rows.items():
            cases = found[0][row]
            by_width[f"d = {width}"] = {case: _median(torch.cat([each[row][case] for each in found])) for case in cases}
    return rows


def mlp_looseness(model: PreTrainedModel, index: int, layer: MlpWithNorms, tokens: Tensor) -> Ratios:
    """The MLP of a layer: δ 1 % of the median token, e 1 % of the smallest spectral norm."""
    up, down, gate = layer.weights
    weights = MlpWeights(up * layer.before.scale, down, gate * layer.before.scale)
    ratios = _mlp_ratios(layer.u, weights, layer.before.epsilon, *_one_percent(layer.u, weights))
    return {case: _median(each) for case, each in ratios.items()}


def attention_looseness(model: PreTrainedModel, index: int, layer: MlpWithNorms, tokens: Tensor) -> Ratios:
    """The attention of a layer of a Llama-like model, its rotations included; δ and e as for the MLP.

    Raises:
        ValueError: what is computed here is not what the model's own attention adds to the stream.
    """
    module = model.get_decoder().layers[index]
    x = _stream(model, index, tokens)
    config, attention, norm = model.config, module.self_attn, module.input_layernorm
    depth, groups = attention.head_dim, config.num_attention_heads // config.num_key_value_heads
    query, key, value = (
        (getattr(attention, f"{name}_proj").weight.detach().double() * norm.weight.detach().double())
        .unflatten(0, (-1, depth))
        .repeat_interleave(1 if name == "q" else groups, 0)
        for name in "qkv"
    )
    weights = AttentionWeights(query, key, value, attention.o_proj.weight.detach().double())
    rotations = model.get_decoder().rotary_emb(x[None], torch.arange(len(x))[None])
    epsilon, scale = norm.variance_epsilon, depth**-0.5
    attend = lambda x, weights: _attended(x, weights, epsilon, scale, causal=True, rotations=rotations)  # noqa: E731
    gained = layer.u - x
    if (attend(x, weights) - x - gained).norm() > 1e-3 * gained.norm():
        raise ValueError(f"The attention of layer {index} is not built like Llama's.")
    ratios = _attention_ratios(x, weights, attend, epsilon, scale, *_one_percent(x, weights))
    return {case: _median(each) for case, each in ratios.items()}


def _stream(model: PreTrainedModel, index: int, tokens: Tensor) -> Tensor:
    """What the layer reads (n, d)."""
    kept: list[Tensor] = []
    handle = (
        model.get_decoder()
        .layers[index]
        .input_layernorm.register_forward_pre_hook(lambda _, arguments: kept.append(arguments[0]))
    )
    with torch.no_grad():
        model.get_decoder()(input_ids=tokens, use_cache=False)
    handle.remove()
    return kept[0][0].double()


def _one_percent(u: Tensor, weights: tuple[Tensor | None, ...]) -> tuple[float, float]:
    norms = [torch.linalg.matrix_norm(matrix, 2).min() for matrix in weights if matrix is not None]
    return _SIZE * _median(u.norm(dim=-1)), _SIZE * min(norms).item()


def _norm_ratio(u: Tensor) -> Tensor:
    actual = (_norm(u, 0.0) - _norm(_nearby(u, _SIZE), 0.0)).norm(dim=-1)
    return norm_error_bound(u, _SIZE) / actual


def _mlp_ratios(u: Tensor, weights: MlpWeights, epsilon: float, delta: float, error: float) -> dict[str, Tensor]:
    def through(u: Tensor, weights: MlpWeights) -> Tensor:
        return u + mlp_output(_norm(u, epsilon), weights, functional.silu)

    found = {}
    for case, (moves, changes) in CASES.items():
        near, e = delta * moves, error * changes
        other = MlpWeights(*(_moved(matrix, e) for matrix in weights))
        actual = (through(u, weights) - through(_nearby(u, near), other)).norm(dim=-1)
        found[case] = mlp_error_bound(u, near, weights, e, ACTIVATION_CONSTANTS["silu"], epsilon=epsilon) / actual
    return found


def _attention_ratios(
    u: Tensor, weights: AttentionWeights, attend: Attend, epsilon: float, scale: float, delta: float, error: float
) -> dict[str, Tensor]:
    found = {}
    for case, (moves, changes) in CASES.items():
        near, e = delta * moves, error * changes
        other = AttentionWeights(*(_moved(matrix, e) for matrix in weights))
        actual = (attend(u, weights) - attend(_nearby(u, near), other)).norm(dim=-1)
        found[case] = attention_error_bound(u, near, weights, e, scale=scale, epsilon=epsilon) / actual
    return found


def _attended(
    x: Tensor,
    weights: AttentionWeights,
    epsilon: float,
    scale: float,
    *,
    causal: bool,
    rotations: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """x + Attn(norm(x)), by torch's own attention."""
    query, key, value = (_norm(x, epsilon) @ matrix.mT for matrix in weights[:3])
    if rotations is not None:
        query, key = (each[0] for each in apply_rotary_pos_emb(query[None], key[None], *rotations))
    heads = functional.scaled_dot_product_attention(query, key, value, is_causal=causal, scale=scale)
    return x + heads.transpose(0, 1).flatten(1) @ weights.output.T


def _norm(u: Tensor, epsilon: float) -> Tensor:
    return functional.rms_norm(u, (u.shape[-1],), eps=epsilon)


def _draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def _weight(*shape: int) -> Tensor:
    """A random matrix that keeps the length of what it reads."""
    return _draw(*shape) / shape[-1] ** 0.5


def _nearby(tokens: Tensor, delta: float) -> Tensor:
    """Each token moved by exactly delta, in a random direction."""
    step = torch.randn_like(tokens)
    return tokens + delta * step / step.norm(dim=-1, keepdim=True)


def _moved(matrix: Tensor, distance: float) -> Tensor:
    """A matrix, or each of a stack, moved by a random one of this spectral norm."""
    step = torch.randn_like(matrix)
    return matrix + distance * step / torch.linalg.matrix_norm(step, 2)[..., None, None]


def _median(values: Tensor) -> float:
    return values.median().item()
