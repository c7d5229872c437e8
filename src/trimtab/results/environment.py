"""With what code, on what machine and by what command a result was made."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from trimtab.files import write_text

COMMAND_VARIABLE = "TRIMTAB_COMMAND"
"""In the environment of a process that another one started elsewhere, the command of that one."""
_PACKAGES = ("trimtab", "torch", "transformers", "peft", "trl", "accelerate", "datasets")


@dataclass(frozen=True)
class Environment:
    """What produced a result: versions, machine, code and command.

    Paths in the command are relative to the working directory: a result does not tell how a disk is laid out.
    """

    versions: dict[str, str | None]
    python: str
    platform: str
    device: str
    git: str | None
    command: str

    @classmethod
    def collect(cls, device: object) -> Environment:
        """The environment of this process; `device` is where the model is ("cpu", a GPU's name, ...)."""
        return cls(
            versions={name: _version(name) for name in _PACKAGES},
            python=platform.python_version(),
            platform=platform.platform(),
            device=str(device),
            git=git_state(Path(__file__)),
            command=user_command(),
        )

    def save(self, path: Path) -> None:
        """Write it to `path` as JSON."""
        write_text(path, json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n")


def user_command() -> str:
    """What the user typed: the line of this process, or of the one that has it work for itself (COMMAND_VARIABLE)."""
    own = shlex.join([Path(sys.argv[0]).name, *map(without_absolute_path, sys.argv[1:])])
    return os.environ.get(COMMAND_VARIABLE) or own


def without_absolute_path(argument: str) -> str:
    """`argument`, or --option=argument, with a path that is absolute made relative."""
    option, equals, value = argument.rpartition("=")
    return f"{option}{equals}{os.path.relpath(value)}" if os.path.isabs(value) else argument


def _version(package: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def git_state(source: Path) -> str | None:
    """The commit of the repository that tracks `source`, "-dirty" after local changes; None outside."""
    git = ["git", "-C", str(source.parent)]
    try:
        # An installed package may lie inside somebody else's repository: only a tracked file has a commit.
        subprocess.run([*git, "ls-files", "--error-unmatch", source.name], check=True, capture_output=True)  # noqa: S603
        describe = [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(describe, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
