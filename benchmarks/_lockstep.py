"""Several calls of `generate` that take turns token by token, each timed while it has its turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from torch import Tensor
from transformers.generation.streamers import BaseStreamer


class Turns:
    """Who may compute: one call at a time, round and round."""

    def __init__(self, names: list[str]) -> None:
        self._waiting = list(names)
        self._changed = threading.Condition()

    def wait(self, name: str) -> None:
        """Until it is the turn of `name`."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting[0] == name)

    def pass_on(self, name: str, *, leaves: bool = False) -> None:
        """Let the next one compute."""
        with self._changed:
            self._waiting.remove(name)
            if not leaves:
                self._waiting.append(name)
            self._changed.notify_all()


class TimedTurn(BaseStreamer):
    """Gives the turn away at each token, and keeps how long the token took.

    Attributes:
        seconds: of each new token but the first, which reads the prompt.
    """

    def __init__(self, name: str, turns: Turns) -> None:
        self.seconds: list[float] = []
        self._name = name
        self._turns = turns
        self._calls = 0
        self._began = 0.0

    def put(self, value: Tensor) -> None:
        """Called with the prompt, then with every new token of all rows."""
        took = time.perf_counter() - self._began
        self._calls += 1
        if self._calls > 2:
            self.seconds.append(took)
        self._turns.pass_on(self._name)
        self._turns.wait(self._name)
        self._began = time.perf_counter()

    def end(self) -> None:
        """Nothing is held back."""


def in_lockstep(calls: dict[str, Callable[[BaseStreamer], None]]) -> dict[str, list[float]]:
    """The seconds of the tokens of each call.

    Args:
        calls: by name, what calls `generate` with the streamer that it is given; each in a thread of its own.

    Raises:
        Exception: what a call raised.
    """
    turns = Turns(list(calls))
    streamers = {name: TimedTurn(name, turns) for name in calls}
    errors: list[Exception] = []

    def run(name: str) -> None:
        turns.wait(name)
        try:
            calls[name](streamers[name])
        except Exception as error:  # raised below, in the thread that asked
            errors.append(error)
        finally:
            turns.pass_on(name, leaves=True)

    threads = [threading.Thread(target=run, args=(name,)) for name in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return {name: streamer.seconds for name, streamer in streamers.items()}
