"""Where the losses of a run go besides metrics.jsonl: the trackers that transformers knows."""

from __future__ import annotations

from trimtab.registry import check_choice

NOWHERE = "none"
_ALL = "all"
_UNKNOWN_IF_THERE = {"flyte"}
"""Trackers of which transformers does not say whether they are installed."""


def check_reporter(name: str) -> None:
    """Refuse a name that is no tracker of transformers, "all" (those that are installed) or "none".

    Raises:
        ValueError: it names the nearest one.
    """
    if name not in (NOWHERE, _ALL):
        from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

        check_choice("report_to", name, {NOWHERE, _ALL, *INTEGRATION_TO_CALLBACK} - _UNKNOWN_IF_THERE)


def require_reporter(name: str) -> None:
    """Refuse, before anything is written, a tracker that is not installed.

    Raises:
        ModuleNotFoundError: it names those that are.
    """
    if name in (NOWHERE, _ALL):
        return
    from transformers.integrations.integration_utils import get_available_reporting_integrations

    installed = get_available_reporting_integrations()
    if name not in installed:
        there = f"There is: {', '.join(sorted(installed))}." if installed else "No tracker is installed."
        raise ModuleNotFoundError(f"report_to={name!r} needs a package that is not installed. {there}")
