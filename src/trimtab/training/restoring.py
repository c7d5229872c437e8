"""A base model is given back as it was lent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel


@contextmanager
def restored(base: PreTrainedModel) -> Iterator[None]:
    """Within the `with` block `base` may be trained; at its end it is set up as before.

    That is which parameters require gradients, each module's training mode and gradient checkpointing, the cache, and
    the `forward` and hooks that PEFT and TRL put on the model. The values of the weights are left as they are.
    """
    trainable = [(parameter, parameter.requires_grad) for parameter in base.parameters()]
    modules = [(module, module.training, getattr(module, "gradient_checkpointing", None)) for module in base.modules()]
    use_cache = getattr(base.config, "use_cache", None)
    embeddings = base.get_input_embeddings()
    hooks = set(embeddings._forward_hooks)
    try:
        yield
    finally:
        base.__dict__.pop("forward", None)  # TRL replaces the forward of the model that it trains
        # For gradient checkpointing PEFT and TRL each hook the embeddings, and transformers keeps one handle only.
        for hook in embeddings._forward_hooks.keys() - hooks:
            del embeddings._forward_hooks[hook]
        if use_cache is not None:
            base.config.use_cache = use_cache
        for parameter, flag in trainable:
            parameter.requires_grad_(flag)
        for module, training, checkpointing in modules:
            module.training = training
            if checkpointing is not None:
                module.gradient_checkpointing = checkpointing
