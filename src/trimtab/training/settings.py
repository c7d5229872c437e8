"""The settings of a training run that are not the method's."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.training.reporting import NOWHERE, check_reporter


def require_trainable_dtype(dtype: str) -> None:
    """Refuse float16: without loss scaling its gradients underflow to zero."""
    if dtype == "float16":
        raise ValueError("A base in float16 cannot be trained on: its gradients underflow. Choose bfloat16 or float32.")


@dataclass(frozen=True)
class TrainingSettings:
    """How long, on what and in what batches.

    Args:
        epochs: passes over the examples.
        max_steps: stop after this many optimiser steps, whatever `epochs` says; None: no such limit.
        batch_size: examples in one optimiser step, over all processes and accumulation steps together.
        accumulation: micro-batches that one optimiser step is computed in.
        examples: how many examples of the training split are used; None: all.
        data_seed: which examples these are.
        seed: the adapter's start and the order of the batches.
        chat: write the examples in the model's chat template (the default, plain text, is the paper's).
        dtype: of the base model, as in `load_model` but not float16, when the model is given by name.
        device: as in `load_model`, when the model is given by name.
        quantization: as in `load_model`, when the model is given by name.
        gradient_checkpointing: trade time for memory.
        share_prefix: compute what all prompts of a batch begin with once. The sums are the same, in another order.
        start_examples: how many examples an adapter with init_weights="gradient" sees before the first step.
        max_grad_norm: gradients are clipped to this norm; 0: not at all.
        log_every: optimiser steps between two lines of metrics.jsonl.
        checkpoint_every: optimiser steps between two checkpoints, from which an interrupted run goes on.
        report_to: a tracker that transformers knows (trackio, wandb, tensorboard, ...), which gets what metrics.jsonl
            gets; "all": those that are installed; "none".
    """

    epochs: float = 1.0
    max_steps: int | None = None
    batch_size: int = 8
    accumulation: int = 1
    examples: int | None = None
    data_seed: int = 0
    seed: int = 0
    chat: bool = False
    dtype: str = "auto"
    device: str = "auto"
    quantization: str | None = None
    gradient_checkpointing: bool = False
    share_prefix: bool = True
    start_examples: int = 32
    max_grad_norm: float = 1.0
    log_every: int = 1
    checkpoint_every: int = 100
    report_to: str = NOWHERE

    def __post_init__(self) -> None:
        """Refuse values with which training could not start."""
        for name in (
            "epochs",
            "batch_size",
            "accumulation",
            "start_examples",
            "log_every",
            "checkpoint_every",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)!r} must be positive.")
        if not self.max_grad_norm >= 0:
            raise ValueError(f"max_grad_norm={self.max_grad_norm!r} must be positive, or 0: gradients are not clipped.")
        require_trainable_dtype(self.dtype)
        check_reporter(self.report_to)
        for name in ("max_steps", "examples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value!r} must be at least 1, or None.")

    def micro_batch(self, processes: int) -> int:
        """Examples in one forward pass of one of `processes`.

        Raises:
            ValueError: the batch does not split evenly.
        """
        size, rest = divmod(self.batch_size, self.accumulation * processes)
        if rest or not size:
            raise ValueError(
                f"batch_size={self.batch_size} does not split into accumulation={self.accumulation} "
                f"micro-batches on {processes} process(es)."
            )
        return size
