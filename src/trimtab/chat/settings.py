"""How messages are written for the model and how it answers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from transformers import PreTrainedTokenizerBase

Form = Literal["auto", "chat", "plain"]


@dataclass(frozen=True)
class ChatSettings:
    """The options of a conversation.

    Args:
        form: chat (the model's chat template), plain (the text as it is typed, and a newline), or auto: what
            the adapter was trained on, else the template if the model has one.
        system: a system message, where there is a chat template.
        max_new_tokens: the longest answer; if not given, as long as in the task it was trained on, or 256.
        temperature: 0 takes the likeliest token each time; above it tokens are drawn.
        stop: the answer ends behind this text, as in --stop '</answer>'.
        seed: of the draws.
    """

    form: Form = "auto"
    system: str | None = None
    max_new_tokens: int | None = None
    temperature: float = 0.0
    stop: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values with which no answer could be given."""
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={self.max_new_tokens!r} must be at least 1.")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature={self.temperature!r} must be a finite number of at least 0.")
        if self.stop == "":
            raise ValueError("stop='' would end every answer before it begins.")

    def for_model(self, tokenizer: PreTrainedTokenizerBase, own: Form = "chat", longest: int = 256) -> ChatSettings:
        """These settings with nothing left open.

        Args:
            tokenizer: the model's.
            own: the form, if the settings leave it open and the model can do it.
            longest: the longest answer, if the settings leave it open.

        Raises:
            ValueError: a template or a system message was asked for, and there is no chat template to put it
                in.
        """
        form = self.form
        if form == "auto":
            form = own if tokenizer.chat_template is not None else "plain"
        if form == "chat" and tokenizer.chat_template is None:
            raise ValueError("The model has no chat template; choose the form plain.")
        if form == "plain" and self.system is not None:
            raise ValueError("A system message needs the form chat; here messages go to the model as plain text.")
        return replace(self, form=form, max_new_tokens=self.max_new_tokens or longest)
