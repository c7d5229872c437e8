"""The conversation in the terminal: what is typed is a message, or a command that begins with a slash."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from peft import PeftModel
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trimtab import get_strengths, set_strength
from trimtab.chat.conversation import Conversation
from trimtab.chat.generation import Show, reply
from trimtab.chat.settings import ChatSettings
from trimtab.registry import unknown

_BASE = "__base__"  # PEFT's name for a row without an adapter


class Session:
    """A model, what was said to it, and the terminal.

    Side by side, base and steered model answer as two rows of one batch, each with its own conversation.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: ChatSettings,
        *,
        compare: bool = False,
        console: Console | None = None,
        read: Callable[[], str] | None = None,
    ) -> None:
        """Prepare; `run` talks.

        Args:
            model: a base, or one with an adapter.
            tokenizer: the model's.
            settings: with `form` decided (`ChatSettings.for_model`).
            compare: let the base answer too.
            console: where to write; None: the terminal.
            read: gives the next line, and raises EOFError at the end; None: reads from the terminal.

        Raises:
            ValueError: there is nothing to compare, as the model has no adapter.
        """
        if compare and not isinstance(model, PeftModel):
            raise ValueError("There is nothing to compare: the model carries no adapter.")
        self._model, self._tokenizer, self._settings = model, tokenizer, settings
        self._names = [_BASE, str(model.active_adapter)] if compare else None
        self._conversations = [Conversation(tokenizer, settings) for _ in self._names or [_BASE]]
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._read = read or self._ask
        self._commands: dict[str, tuple[str, Callable[[str], None]]] = {
            "/strength": ("show the adapter's strength, or set it: /strength 0.5", self._strength),
            "/reset": ("forget what was said", self._reset),
            "/help": ("list these commands", self._help),
            "/quit": ("leave, as Ctrl-D does", self._quit),
        }
        self._done = False

    def run(self) -> None:
        """Talk until /quit or the end of the input."""
        form = "in its chat template" if self._settings.form == "chat" else "as plain text"
        self._say(f"Messages go to the model {form}. /help lists the commands; Ctrl-C ends an answer.")
        while not self._done:
            try:
                line = self._read().strip()
            except (EOFError, KeyboardInterrupt):
                self._console.print()
                return
            if line.startswith("/"):
                self._command(line)
            elif line:
                self._turn(line)

    def _turn(self, text: str) -> None:
        """Let the model answer, and remember both if it could."""
        try:
            prompts = [conversation.prompt(text) for conversation in self._conversations]
        except ValueError as error:
            self._say(str(error))
            return
        try:
            with self._display() as show:
                answers = reply(self._model, self._tokenizer, prompts, self._settings, show, self._names)
        except ValueError as error:
            self._say(f"{error} /reset begins anew.")
            return
        for conversation, answer in zip(self._conversations, answers, strict=True):
            conversation.add(text, answer)

    @contextmanager
    def _display(self) -> Iterator[Show]:
        """Where an answer appears while it is generated: on the next line, or in two columns."""
        if self._names is None:
            yield _Line(self._console)
            self._console.print()
            return
        last: list[str] = ["", ""]
        # Two columns are drawn anew with each token; what does not fit on the screen shows when it is
        # finished.
        with Live(console=self._console, transient=True, refresh_per_second=12) as live:

            def show(texts: Sequence[str]) -> None:
                last[:] = texts
                live.update(self._columns(texts))

            yield show
        self._console.print(self._columns(last))

    def _columns(self, texts: Sequence[str]) -> Table:
        table = Table(expand=True, pad_edge=False)
        for title in ("base", self._title()):
            table.add_column(title, ratio=1, overflow="fold")
        table.add_row(*(Text(text.strip()) for text in texts))
        return table

    def _title(self) -> str:
        strengths = get_strengths(self._model)
        shown = ", ".join(f"{value:g}" for name, value in strengths.items() if name in (self._names or ()))
        return f"steered, strength {shown}" if shown else "adapted"

    def _command(self, line: str) -> None:
        name, _, argument = line.partition(" ")
        try:
            if name not in self._commands:
                raise unknown("command", name, self._commands)
            self._commands[name][1](argument.strip())
        except ValueError as error:
            self._say(str(error))

    def _strength(self, argument: str) -> None:
        if argument:
            try:
                value = float(argument)
            except ValueError as error:
                raise ValueError(f"The strength {argument!r} is not a number.") from error
            set_strength(self._model, value)
        strengths = get_strengths(self._model)
        if not strengths:
            raise ValueError("The model has no steering adapter, so there is no strength.")
        self._say("strength " + ", ".join(f"{value:g}" for value in strengths.values()))

    def _reset(self, argument: str) -> None:
        for conversation in self._conversations:
            conversation.clear()
        self._say("Forgotten.")

    def _help(self, argument: str) -> None:
        width = max(map(len, self._commands))
        self._say("\n".join(f"{name:{width}}  {what}" for name, (what, _) in self._commands.items()))

    def _quit(self, argument: str) -> None:
        self._done = True

    def _say(self, text: str) -> None:
        self._console.print(Text(text, style="dim"))

    def _ask(self) -> str:
        if not sys.stdin.isatty():  # piped: an echo of the prompt would only be in the way
            return input()
        import readline  # noqa: F401  # from here on, input() can edit lines and has a history

        return input("> ")


class _Line:
    """Prints what is new of a growing text."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown = ""

    def __call__(self, texts: Sequence[str]) -> None:
        (text,) = texts
        self._console.print(Text(text[len(self._shown) :]), end="")
        self._shown = text
