"""A family that nobody listed: does a known anatomy fit it, and do the numbers agree?"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from trimtab.sites._decoder import Decoder
from trimtab.sites.base import DecoderLayer, Family

# A bf16 stream is rounded at each of its additions; a forgotten factor or norm misses by tens of per cent.
_ROUNDINGS = 16

# Only families that passed, by the sub-model that was run: asking for the next site does not run it again.
_passed: WeakKeyDictionary[nn.Module, Family] = WeakKeyDictionary()


def missing(family: Family, layers: list[DecoderLayer]) -> str | None:
    """Which module of the anatomy is not in these layers; None if all are."""
    for layer in layers:
        for path in family.paths:
            try:
                layer.find(path)
            except LookupError as error:
                return str(error)
    return None


def foreign(family: Family, layers: list[DecoderLayer]) -> str | None:
    """What these layers have that the anatomy has not, and that might change the stream; None if nothing.

    An adapter that hangs below a layer is not part of its anatomy.
    """
    config = layers[0].config
    if family.multiplier is not None and not hasattr(config, family.multiplier):
        return f"the config has no {family.multiplier!r}"
    known = {path.partition(".")[0] for path in family.paths} | set(family.norms)
    for layer in layers:
        for name, child in layer.inner.named_children():
            parameters = any(True for _ in child.parameters())
            if name not in known and parameters and not isinstance(child, BaseTunerLayer):
                return f"{layer.name!r} has another child {name!r} ({type(child).__name__})"
        own = (*layer.inner.named_parameters(recurse=False), *layer.inner.named_buffers(recurse=False))
        if own:
            return f"{layer.name!r} has a tensor {own[0][0]!r} of its own"
    return None


def family_by_structure(decoder: Decoder, layers: list[DecoderLayer], known: list[Family]) -> Family:
    """The known anatomy that an unlisted model has.

    Names alone do not say what a layer computes, so a model on a real device also has to pass a check by
    numbers: a four-token run of its text model must show x + m Attn + m MLP = z in every layer.

    Raises:
        ValueError: none fits; the message names the file to add and the modules that were seen.
    """
    first, owner = layers[0].inner, decoder.owner
    if owner in _passed:
        return _passed[owner]
    reasons = []
    # One that knows of a multiplier goes first: without a check (meta device) it must not be overlooked.
    for family in sorted(known, key=lambda family: family.multiplier is None):
        reason = missing(family, layers) or foreign(family, layers)
        if reason is None:
            if any(parameter.is_meta for parameter in owner.parameters()):
                return family
            if _deviation(owner, layers, family) <= 1.0:
                _passed[owner] = family
                return family
            reason = "what attention and the MLP return is not what the stream gains"
        reasons.append(f"  {family.name}: {reason}")
    children = ", ".join(f"{name}: {type(child).__name__}" for name, child in first.named_children())
    model_type = decoder.config.model_type
    raise ValueError(
        f"No known anatomy fits the decoder layers of {type(owner).__name__} (model_type {model_type!r}): "
        f"{type(first).__name__}({children}). Describe them in one new file, "
        f"src/trimtab/sites/families/{model_type}.py (docs/how-to/add-a-family.md), or name the modules "
        "to be steered with target_modules. The known anatomies, and what speaks against each:\n" + "\n".join(reasons)
    )


@torch.no_grad()
def _deviation(owner: nn.Module, layers: list[DecoderLayer], family: Family) -> float:
    """The largest |z - x - m Attn - m MLP| of a layer, in units of what rounding explains (1.0: just so)."""
    kept: dict[tuple[int, str], Tensor] = {}
    handles = []

    def keep(index: int, name: str, value: Tensor | tuple[Tensor, ...]) -> None:
        # A copy: Falcon adds attention to the MLP's output in place.
        kept[index, name] = (value if isinstance(value, Tensor) else value[0]).detach().clone()

    for layer in layers:
        i = layer.index
        handles += [
            layer.inner.register_forward_pre_hook(
                lambda _, args, kwargs, i=i: keep(i, "x", args[0] if args else kwargs["hidden_states"]),
                with_kwargs=True,
            ),
            # Before other hooks: what an adapter does to the layer's output is not the layer's own doing,
            # while what it does to a sub-layer's output (below: after other hooks) does reach the stream.
            layer.inner.register_forward_hook(lambda _, __, out, i=i: keep(i, "z", out), prepend=True),
        ]
        for name, path in (("attention", family.attention), ("mlp", family.mlp)):
            _, module = layer.find(path)
            handles.append(module.register_forward_hook(lambda _, __, out, i=i, n=name: keep(i, n, out)))
    training = {module: module.training for module in owner.modules()}
    owner.eval()
    try:
        device = next(owner.parameters()).device
        owner(input_ids=torch.arange(1, 5, device=device)[None], use_cache=False)
    except Exception as error:
        error.add_note(f"(raised while checking whether {type(owner).__name__} is built like {family.name!r})")
        raise
    finally:
        for handle in handles:
            handle.remove()
        for module, was in training.items():
            module.training = was
    return max(_excess(kept, layer.index, family.multiplier_in(layer.config)) for layer in layers)


def _excess(kept: dict[tuple[int, str], Tensor], index: int, multiplier: float) -> float:
    """`_deviation` of one layer; infinite where a module was never called."""
    names = ("x", "z", "attention", "mlp")
    if not all((index, name) in kept for name in names):
        return float("inf")
    x, z, attention, mlp = (kept[index, name].cpu().double().flatten() for name in names)
    if not x.numel() == z.numel() == attention.numel() == mlp.numel():
        return float("inf")
    gained = multiplier * (attention + mlp)
    scale = x.norm() + attention.norm() + mlp.norm() + z.norm()
    return float((z - x - gained).norm() / (_ROUNDINGS * torch.finfo(kept[index, "z"].dtype).eps * scale))
