"""What flows through a model at its sites, in one forward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from first_argument import replace_first_argument
from trimtab.sites import Host, decoder_layers, locate, site_names

IDS = torch.tensor([[5, 17, 3, 42, 8, 30], [9, 9, 11, 2, 60, 1]])


def tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else value[0]


class Captured:
    """The tensors at the hosts of every site, and the input of each decoder layer, in one forward pass."""

    def __init__(self, model: nn.Module, added: dict[Host, Tensor] | None = None) -> None:
        self.at: dict[tuple[str, int], Tensor] = {}
        self.hosts = {site: locate(model, site) for site in site_names()}
        handles = []
        for host, vector in (added or {}).items():
            handles.append(model.get_submodule(host.module).register_forward_hook(self.adder(vector)))
        for site, hosts in self.hosts.items():
            for host in hosts:
                module, key = model.get_submodule(host.module), (site, host.layer)
                if host.side == "input":
                    handles.append(replace_first_argument(module, self.reader(key)))
                else:
                    handles.append(module.register_forward_hook(self.keeper(key)))
        for i, layer in enumerate(decoder_layers(model)[1]):
            handles.append(layer.register_forward_pre_hook(self.keeper(("x", i))))
        with torch.no_grad():
            model(input_ids=IDS, use_cache=False)
        for handle in handles:
            handle.remove()

    def keeper(self, key: tuple[str, int]) -> Any:
        def keep(module: nn.Module, *args_and_output: Any) -> None:
            self.at[key] = tensor(args_and_output[-1]).clone()

        return keep

    def reader(self, key: tuple[str, int]) -> Any:
        def keep(h: Tensor) -> Tensor:
            self.at[key] = h.clone()
            return h

        return keep

    @staticmethod
    def adder(vector: Tensor) -> Any:
        def add(module: nn.Module, args: Any, output: Any) -> Any:
            return output + vector if isinstance(output, Tensor) else (output[0] + vector, *output[1:])

        return add

    def __getitem__(self, key: tuple[str, int]) -> Tensor:
        """The tensor as (batch, tokens, width); OPT flattens the first two inside the layer."""
        return self.at[key].reshape(*IDS.shape, -1)
