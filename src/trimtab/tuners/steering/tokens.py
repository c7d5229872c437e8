"""How layers deep in a model learn which tokens they see, and which row has which adapter.

They get hidden states only. One `TokenContext` per model listens at its two doors, the model itself (which gets
`labels`) and its backbone (which gets ids, masks and the cache), and answers the layers while a forward pass runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from trimtab.positions import PositionPolicy
from trimtab.tuners.steering.forward_pass import ForwardPass, PromptEnd, read_forward_pass


class TokenContext:
    """The tokens of the forward pass that is running.

    Attributes:
        adapter_rows: the adapter of each row, for a call with `adapter_names=`.
        listens: whether any adapter steers some tokens only: else no forward pass has to be read.
    """

    def __init__(self) -> None:
        """Nothing is running yet."""
        self.listens = False
        self.adapter_rows: tuple[str, ...] | None = None
        self._handles: list[Any] = []
        self._model: nn.Module | None = None
        self._model_runs = False
        self._end = PromptEnd()
        self._running: ForwardPass | ValueError | None = None
        self._checkpoints: list[tuple[nn.Module, Callable[..., Any]]] = []

    def attach(self, model: nn.Module, backbone: nn.Module) -> None:
        """Listen to `model` and its `backbone`; doing it twice changes nothing."""
        if self._handles:
            return
        self._model = model
        self._handles = [
            model.register_forward_pre_hook(self._before_model, with_kwargs=True),
            model.register_forward_hook(self._after_model, always_call=True),
            backbone.register_forward_pre_hook(self._before_backbone, with_kwargs=True),
            backbone.register_forward_hook(self._after_backbone, always_call=True),
        ]
        if hasattr(type(model), "generate"):
            # On the instance, so that PEFT, TRL and transformers all come by; a partial survives deepcopy and pickle.
            model.generate = partial(_generate, model)  # type: ignore[assignment]
            model._steering_tokens = self  # type: ignore[assignment]

    def detach(self) -> None:
        """Leave the model as it was."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if self._model is not None:
            self._model.__dict__.pop("generate", None)
            self._model.__dict__.pop("_steering_tokens", None)
        self._model = None

    def selected(self, policy: PositionPolicy, h: Tensor) -> Tensor | None:
        """The mask of the tokens of `h` (rows, tokens, width) that `policy` steers; None is all of them.

        Raises:
            ValueError: it cannot be told where the prompt ends.
            RuntimeError: no forward pass is running, or `h` does not have the tokens of its input.
        """
        if policy.everything:
            return None
        if self._running is None:
            raise RuntimeError(
                "positions other than 'all' need a model that is called with input_ids or inputs_embeds, and for "
                "gradient checkpointing that of transformers (model.gradient_checkpointing_enable())."
            )
        if isinstance(self._running, ValueError):
            raise self._running
        mask = self._running.selected(policy)
        if mask.numel() != h[..., 0].numel():
            raise RuntimeError(f"Hidden states of shape {tuple(h.shape)} for {tuple(mask.shape)} tokens of input.")
        return mask.to(h.device).view(h.shape[:-1])

    def row_groups(self, h: Tensor) -> list[tuple[str, int]]:
        """The rows of `h` (rows, ...) in the groups that follow each other: adapter, and number of rows."""
        rows = self.adapter_rows or ()
        if not rows or h.shape[0] % len(rows):
            raise ValueError(
                "Length of `adapter_names` should be the same as the number of inputs, but got "
                f"{len(rows)} and {h.shape[0]} respectively."
            )
        # Beams and several returned sequences repeat each row in place.
        repeats = h.shape[0] // len(rows)
        return [(name, repeats * len(list(group))) for name, group in groupby(rows)]

    @contextmanager
    def generating(self, prompt: Tensor) -> Iterator[None]:
        """For the time of a `generate` call: `prompt` (rows, columns) is true on the real tokens of its input."""
        outer, self._end = self._end, replace(self._end, generation=prompt)
        try:
            yield
        finally:
            self._end = outer

    @contextmanager
    def prompt_lengths(self, lengths: Tensor) -> Iterator[None]:
        """For the time of the `with` block: the number of prompt tokens of each row."""
        outer, self._end = self._end, replace(self._end, lengths=lengths)
        try:
            yield
        finally:
            self._end = outer

    def _before_model(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self.listens:
            return
        self._model_runs = True
        arguments = _arguments(model, args, kwargs)
        self._end = replace(self._end, labels=arguments.get("labels"), mask=arguments.get("attention_mask"))

    def _after_model(self, model: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not self.listens:
            return
        self._model_runs = False
        self._end = replace(self._end, labels=None, mask=None)
        self._running = None

    def _before_backbone(self, backbone: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self.listens:
            return
        gradients = torch.is_grad_enabled()
        arguments = _arguments(backbone, args, kwargs)
        try:
            self._running = read_forward_pass(arguments, self._end, backbone.training and gradients)
        except ValueError as error:
            self._running = error  # raised when an adapter asks: inactive and disabled ones do not
        if gradients and isinstance(self._running, ForwardPass):
            self._bind_checkpoints(backbone, self._running)

    def _after_backbone(self, backbone: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        while self._checkpoints:
            module, function = self._checkpoints.pop()
            module._gradient_checkpointing_func = function  # type: ignore[assignment]
        if not self._model_runs:  # else the head may still ask
            self._running = None

    def _bind_checkpoints(self, backbone: nn.Module, running: ForwardPass) -> None:
        """Make what is checkpointed in this forward pass be re-computed with the tokens of this forward pass.

        The backward pass runs layers again, after the forward pass and perhaps after others.
        """
        for module in backbone.modules():
            if getattr(module, "gradient_checkpointing", False):
                function = module.__dict__.get("_gradient_checkpointing_func")
                if function is not None:
                    self._checkpoints.append((module, function))
                    module._gradient_checkpointing_func = partial(  # type: ignore[assignment]
                        self._checkpoint, function, running
                    )

    def _checkpoint(
        self, function: Callable[..., Any], running: ForwardPass, run: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        def run_again(*inputs: Any, **options: Any) -> Any:
            outer, self._running = self._running, running
            try:
                return run(*inputs, **options)
            finally:
                self._running = outer

        return function(run_again, *args, **kwargs)


def _arguments(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    if not args:
        return kwargs
    bound = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
    return {**bound, **bound.get("kwargs", {})}


def _generate(model: Any, *args: Any, **kwargs: Any) -> Any:
    """`generate` of the model's class, with the extent of the prompt known to the adapters."""
    if _setting("guidance_scale", model, kwargs) not in (None, 1) and _counts_tokens(model):
        raise ValueError("guidance_scale runs a second prompt beside the first: that needs positions='all'.")
    ways = (*args[:1], *(kwargs.get(name) for name in ("inputs", "input_ids", "inputs_embeds")))
    inputs = next((each for each in ways if each is not None), None)
    mask = kwargs.get("attention_mask")
    if inputs is None:
        mask = torch.ones((1, 1))  # transformers starts from one begin-of-text token
    elif mask is None:
        mask = _inferred_mask(inputs, _setting("pad_token_id", model, kwargs), _setting("eos_token_id", model, kwargs))
    with model._steering_tokens.generating(mask.bool()):
        return type(model).generate(model, *args, **kwargs)


def _counts_tokens(model: Any) -> bool:
    """Whether an adapter that steers now, active and not disabled, does so on some tokens only."""
    context: TokenContext = model._steering_tokens
    layers: list[Any] = [layer for layer in model.modules() if getattr(layer, "context", None) is context]
    return any(
        layer.strengths.get(name) and not layer.policies[name].everything
        for layer in layers
        if not layer.disable_adapters
        for name in context.adapter_rows or layer.active_adapters
    )


def _setting(name: str, model: Any, kwargs: dict[str, Any]) -> Any:
    """What `generate` takes for a setting: the keyword, else what the generation config says."""
    config = kwargs.get("generation_config") or model.generation_config
    return kwargs.get(name, getattr(config, name, None))


def _inferred_mask(inputs: Tensor, pad: int | None, end: int | Sequence[int] | None) -> Tensor:
    """The mask that transformers infers when `generate` gets none: padding only if it cannot be the end token."""
    ends = [end] if isinstance(end, int) else (end or [])
    if inputs.dim() != 2 or pad is None or pad in ends:
        return torch.ones(inputs.shape[:2], dtype=torch.bool, device=inputs.device)
    return inputs != pad
