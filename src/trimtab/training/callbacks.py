"""What a run says while it goes on: a progress bar on the terminal and a line a step in metrics.jsonl."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from transformers import TrainerCallback, TrainerState, TrainingArguments

from trimtab.files import write_text

_LOGGED = ("loss", "learning_rate", "grad_norm", "epoch")


class MetricsFile:
    """A JSONL file of what is logged: a line holds step, loss, rate, gradient norm and tokens."""

    def __init__(self, path: Path) -> None:
        """Write to `path`."""
        self.path = path

    def keep(self, step: int) -> None:
        """Drop the lines behind `step`: a run that resumes from a checkpoint does those steps again."""
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True) if self.path.exists() else []
        kept = (line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step)
        write_text(self.path, "".join(kept))

    def append(self, step: int, logs: dict[str, float], tokens: int) -> None:
        """Write one line, of what the Trainer logs and the tokens seen so far."""
        line = {"step": step, **{name: logs[name] for name in _LOGGED if name in logs}, "tokens": tokens}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


class MetricsWriter(TrainerCallback):
    """Appends what is logged to a `MetricsFile`."""

    def __init__(self, path: Path) -> None:
        """Write to `path`."""
        self._file = MetricsFile(path)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Keep the lines up to the step that training starts at."""
        if state.is_world_process_zero:
            self._file.keep(state.global_step)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Write one line; the summary that the Trainer logs at the end has no loss and is left out."""
        logs: dict[str, float] = kwargs["logs"]
        if state.is_world_process_zero and "loss" in logs:
            self._file.append(state.global_step, logs, state.num_input_tokens_seen)


class ProgressBar(TrainerCallback):
    """Steps done, loss, tokens a second and the time left, on standard error."""

    def __init__(self, title: str) -> None:
        """Call the bar `title`."""
        self.title = title
        self._progress: Progress | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Show the bar, at the step that training starts at."""
        if not state.is_world_process_zero:
            return
        self._started, self._tokens_before = time.perf_counter(), state.num_input_tokens_seen
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}  {task.fields[speed]} tokens/s"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task(
            self.title, total=state.max_steps, completed=state.global_step, loss="-", speed="-"
        )
        self._progress.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Move the bar."""
        if self._progress is not None:
            tokens = state.num_input_tokens_seen - self._tokens_before
            speed = f"{tokens / (time.perf_counter() - self._started):,.0f}"
            self._progress.update(self._task, completed=state.global_step, speed=speed)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Show the loss."""
        if self._progress is not None and "loss" in kwargs["logs"]:
            self._progress.update(self._task, loss=f"{kwargs['logs']['loss']:.3f}")

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Leave the bar as it is and give the terminal back."""
        self.close()

    def close(self) -> None:
        """Stop drawing; also after an error, when `on_train_end` is never called."""
        if self._progress is not None:
            self._progress.stop()
