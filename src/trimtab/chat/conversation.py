"""What was said so far, and the token ids that a model reads to answer."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from trimtab.chat.settings import ChatSettings
from trimtab.encoding import in_template


class Conversation:
    """The turns of one speaker with one model.

    As plain text a turn is its text and a newline, one after another; with a chat template it is what the
    template makes of it. The whole conversation is encoded anew each time, so that the tokens are those of
    training.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, settings: ChatSettings) -> None:
        """An empty conversation; `settings.form` must be decided (`ChatSettings.for_model`)."""
        self._tokenizer = tokenizer
        self._template = settings.form == "chat"
        self._opening: list[dict[str, str]] = [] if settings.system is None else [_turn("system", settings.system)]
        self.turns: list[dict[str, str]] = []

    def prompt(self, text: str) -> list[int]:
        """The token ids of everything said so far and of `text`, after which the model speaks.

        Raises:
            ValueError: the chat template refuses the conversation.
        """
        turns = [*self._opening, *self.turns, _turn("user", text)]
        if not self._template:
            return list(self._tokenizer("".join(f"{turn['content']}\n" for turn in turns)).input_ids)
        written = in_template(self._tokenizer, turns, "The conversation", answer_follows=True)
        # The template has written the special tokens itself.
        return list(self._tokenizer(written, add_special_tokens=False).input_ids)

    def add(self, text: str, answer: str) -> None:
        """Remember a turn of each."""
        self.turns += [_turn("user", text), _turn("assistant", answer)]

    def clear(self) -> None:
        """Forget everything but the system message."""
        self.turns.clear()


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
