"""The command line: `trimtab VERB`, one typed function a verb; `trimtab --help` lists them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from trimtab.cli.parser import UsageError, build_parser, call
from trimtab.cli.verbs import VERBS
from trimtab.logs import configure_logging
from trimtab.sweeps import UnfinishedSweepError

# What the library raises on purpose. Anything else is a bug, and a bug keeps its traceback.
_EXPECTED = (ValueError, OSError, FloatingPointError, MemoryError, ModuleNotFoundError, UnfinishedSweepError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0: done; 1: it could not be done, with one line that says why; 2: it was asked for wrongly; 130:
        interrupted.
    With TRIMTAB_TRACEBACK=1 in the environment an error shows where it was raised.

    Args:
        arguments: the words after `trimtab`; None: those of this process.
    """
    parser = build_parser(VERBS)
    parsed = parser.parse_args(None if arguments is None else list(arguments))
    configure_logging()
    try:
        call(VERBS[parsed.subcommand], parsed[parsed.subcommand].as_dict())
    except UsageError as error:
        return _failed(error, 2)
    except _EXPECTED as error:
        return _failed(error, 1)
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        return 130
    return 0


def _failed(error: Exception, code: int) -> int:
    if os.environ.get("TRIMTAB_TRACEBACK"):
        raise error
    sys.stderr.write(f"error: {str(error).strip() or type(error).__name__}\n")
    return code
