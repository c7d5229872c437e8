"""What is analysed: a model, what was trained on it, and prompts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trimtab.models import AnyModel, context_length
from trimtab.sites import decoder_layers
from trimtab.tuners.steering.hosts import base_facts


@dataclass(frozen=True)
class Subject:
    """A model, what was trained on it, and prompts.

    Prompts with even indices and those with odd ones are two halves: maps are fitted on the first and scored on the
    second, where a figure says so.

    Attributes:
        model: the base, or a PeftModel with an active adapter on it.
        tokenizer: its tokenizer.
        prompts: token ids.
        tuned: a fine-tuned copy of the base; it is the oracle where it is given, else the adapter is.
    """

    model: AnyModel
    tokenizer: PreTrainedTokenizerBase
    prompts: tuple[tuple[int, ...], ...]
    tuned: PreTrainedModel | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be compared or read.

        Raises:
            ValueError: no prompts, an empty one, or one longer than the context; adapters that cannot be turned off
                (merged into the weights, made of virtual tokens, or added without a PeftModel); a tuned model of
                another shape.
        """
        if not self.prompts:
            raise ValueError("There are no prompts to analyse the model on.")
        context = context_length(self.model)
        for index, prompt in enumerate(self.prompts):
            if not prompt:
                raise ValueError(f"Prompt {index} is empty.")
            if context is not None and len(prompt) > context:
                raise ValueError(
                    f"Prompt {index} has {len(prompt):,} tokens, more than the model's context of {context:,}."
                )
        layers = [module for module in self.model.modules() if isinstance(module, BaseTunerLayer)]
        if any(layer.merged for layer in layers):
            raise ValueError("An adapter is merged into the weights, so the base cannot be seen: unmerge it first.")
        if isinstance(self.model, PeftModel):
            if self.model.active_peft_config.is_prompt_learning:
                raise ValueError("An adapter of virtual tokens (prompt learning) shifts no hidden state in place.")
        elif layers:
            raise ValueError(
                "The model carries an adapter but is no PeftModel: load it with PeftModel.from_pretrained."
            )
        if self.tuned is not None and base_facts(self.tuned) != base_facts(self.model):
            raise ValueError(
                f"The fine-tuned model is another one than the base: {base_facts(self.tuned)} "
                f"instead of {base_facts(self.model)}."
            )

    @property
    def has_oracle(self) -> bool:
        """Whether something was trained."""
        return self.tuned is not None or isinstance(self.model, PeftModel)

    @property
    def width(self) -> int:
        """The width d of the residual stream."""
        return int(self.model.config.get_text_config().hidden_size)

    @property
    def layer_count(self) -> int:
        """How many decoder layers there are."""
        return len(decoder_layers(self.model)[1])

    def tokens(self, skip_first: int, half: int | None = None) -> int:
        """How many tokens the prompts have without the `skip_first` first ones of each.

        Args:
            skip_first: as in `AnalysisOptions`.
            half: 0 or 1; None: both halves.
        """
        chosen = self.prompts if half is None else self.prompts[half::2]
        return sum(max(0, len(prompt) - skip_first) for prompt in chosen)

    @contextmanager
    def as_base(self) -> Iterator[AnyModel]:
        """The base: within the `with` block in evaluation mode, without gradients, adapters off."""
        with _observed(self.model):
            if isinstance(self.model, PeftModel):
                with self.model.disable_adapter():
                    yield self.model
            else:
                yield self.model

    @contextmanager
    def as_tuned(self) -> Iterator[AnyModel]:
        """The oracle: the fine-tuned model, or the model with its adapter; otherwise as `as_base`.

        Raises:
            ValueError: nothing was trained.
        """
        if not self.has_oracle:
            raise ValueError("Nothing was trained: give an adapter or a fine-tuned model.")
        oracle = self.model if self.tuned is None else self.tuned
        with _observed(oracle):
            yield oracle


@contextmanager
def _observed(model: AnyModel) -> Iterator[None]:
    """Evaluation mode and no gradients; afterwards every module's mode and every parameter's flag are as before."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]  # PEFT's switch changes them
    model.eval()
    try:
        with torch.no_grad():  # not inference mode: what is computed may stay in a cache (the joint adapter's Q)
            yield
    finally:
        for module, was_training in modes:
            module.training = was_training
        for parameter, had_gradient in flags:
            parameter.requires_grad_(had_gradient)
