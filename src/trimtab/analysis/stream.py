"""Hidden states of many prompts: padded batches, hooks at sites, padding left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from trimtab.encoding import length_batches
from trimtab.sites import locate
from trimtab.sites.base import Host
from trimtab.tuners.steering.hosts import backbone

Key = TypeVar("Key")


@dataclass(frozen=True)
class Batch:
    """Some prompts, padded on their right.

    Attributes:
        prompts: their indices.
        ids: token ids; 0 where there is padding, which the mask keeps away.
        mask: 1 on tokens, 0 on padding.
        kept: true on the tokens that are measured.
    """

    prompts: tuple[int, ...]
    ids: Int[Tensor, "rows columns"]
    mask: Int[Tensor, "rows columns"]
    kept: Bool[Tensor, "rows columns"]


def batches(prompts: Sequence[Sequence[int]], *, batch_tokens: int, skip_first: int = 0) -> Iterator[Batch]:
    """The prompts in batches of similar length, the longest first, so that memory that does not suffice shows at once.

    Padding is on the right: tokens in front of it neither see it nor change their position. A prompt all of whose
    tokens are skipped is left out.

    Args:
        prompts: token ids.
        batch_tokens: rows x columns stays within this, or there is one row.
        skip_first: tokens at the start of each prompt that are read, but not measured.
    """
    measured = [index for index, prompt in enumerate(prompts) if len(prompt) > skip_first]
    for chosen in length_batches([len(prompts[index]) for index in measured], 0, batch_tokens):
        indices = tuple(measured[each] for each in chosen)
        rows = [list(prompts[index]) for index in indices]
        columns = max(map(len, rows))
        ids = torch.tensor([row + [0] * (columns - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (columns - len(row)) for row in rows])
        kept = mask.bool()
        kept[:, :skip_first] = False
        yield Batch(indices, ids, mask, kept)


def at_sites(
    model: nn.Module, sites: Sequence[str], layers: Sequence[int] | None = None
) -> dict[tuple[str, int], Host]:
    """The hosts of some sites by (site, layer)."""
    return {(site, host.layer): host for site in sites for host in locate(model, site, layers)}


def hidden_states(
    model: nn.Module, batch: Batch, hosts: Mapping[Key, Host]
) -> dict[Key, Float[Tensor, "tokens width"]]:
    """What passes through `hosts` as the model reads a batch: the tokens that are kept, row after row.

    The language-model head is not run. A steered host gives the steered tensor, a host whose output the family
    multiplies before it reaches the stream (Granite) the product. All hosts' tensors of the batch are held at once, on
    the model's device and in its dtype.

    Args:
        model: the model in which the hosts were located, as it is to be observed (see `Subject`).
        batch: of token ids.
        hosts: where to look, under any keys.

    Raises:
        ValueError: a host was not reached, or its tensor does not have a row for each token.
    """
    trunk = backbone(model)
    device = next(trunk.parameters()).device
    mask, kept = batch.mask.to(device), batch.kept.to(device)
    found: dict[Key, Tensor] = {}
    with _hooks(model, hosts, kept, found):
        trunk(input_ids=batch.ids.to(device), attention_mask=mask, use_cache=False)
    if missing := [host.module for key, host in hosts.items() if key not in found]:
        raise ValueError(f"Nothing passed through {', '.join(missing)}: the model computes its layers another way.")
    return found


@contextmanager
def _hooks(model: nn.Module, hosts: Mapping[Key, Host], kept: Tensor, found: dict[Key, Tensor]) -> Iterator[None]:
    """Within the `with` block, what passes through the hosts is put into `found`; behind an adapter's own hook."""

    def keep(key: Key, tensor: Tensor) -> None:
        host = hosts[key]
        if tensor.numel() != kept.numel() * host.width:
            raise ValueError(f"{host.module!r} holds {tuple(tensor.shape)}, not {host.width} numbers for each token.")
        # Some families flatten rows and columns (OPT).
        chosen = tensor.detach().reshape(*kept.shape, host.width)[kept.to(tensor.device)]
        found[key] = chosen * host.multiplier if host.multiplier != 1.0 else chosen

    def on_output(key: Key, _: nn.Module, args: Any, output: Any) -> None:
        keep(key, output if isinstance(output, Tensor) else output[0])

    def on_input(key: Key, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        keep(key, args[0] if args else kwargs["hidden_states"])

    handles = []
    for key, host in hosts.items():
        module = model.get_submodule(host.module)
        if host.side == "output":
            handles.append(module.register_forward_hook(partial(on_output, key)))
        else:
            handles.append(module.register_forward_pre_hook(partial(on_input, key), with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
