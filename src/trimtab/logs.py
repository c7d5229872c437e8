"""What a program of ours says besides its results: short lines on standard error."""

from __future__ import annotations

import logging
import sys
import warnings

from transformers.utils import logging as transformers_logging


def configure_logging() -> None:
    """Show this library's messages, from INFO on, and transformers' only when something is wrong.

    For programs (the command line, the demo's processes); the library itself never calls it.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)  # for authors, not for users
    own = logging.getLogger("trimtab")
    if not own.handlers:
        own.addHandler(_Lines())
        own.setLevel(logging.INFO)


class _Lines(logging.Handler):
    """One line a message, on what is standard error at the time: a progress bar may stand in for it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the message."""
        sys.stderr.write(self.format(record) + "\n")
