"""A hook on what a module reads, whether it is called with a first argument or with the keyword `hidden_states`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


def replace_first_argument(module: nn.Module, new: Callable[[Tensor], Tensor]) -> RemovableHandle:
    """`module` reads `new(h)` in place of h, until the handle is removed."""

    def before(_: nn.Module, args: Any, kwargs: Any) -> Any:
        if args:
            return (new(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": new(kwargs["hidden_states"])}

    return module.register_forward_pre_hook(before, with_kwargs=True)
