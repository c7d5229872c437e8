"""The methods as a table."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from transformers import PreTrainedModel

from trimtab.interventions import intervention_names
from trimtab.methods import METHODS, Method, parameter_count
from trimtab.models import skeleton
from trimtab.positions import POLICIES
from trimtab.sites import site_names


def method_table(model: str | None) -> Group:
    """One row a method; with a model, how many parameters it trains. Below, what the four choices can be.

    Args:
        model: a model's name, or a directory that holds at least its config.json; None lists the methods alone.

    Raises:
        ValueError: there is no such model, or its configuration cannot be read.
    """
    bare = None if model is None else skeleton(model)
    table = Table()
    table.add_column("method", no_wrap=True)
    for column in ("where", "what", "positions", "weights", "learning rates", "schedule"):
        table.add_column(column, overflow="fold")
    misfits: list[str] = []
    if bare is not None:
        table.title = f"{model}: {bare.num_parameters():,} parameters"
        table.add_column("parameters", justify="right", no_wrap=True)
        table.add_column("% of model", justify="right", no_wrap=True)
    for method in METHODS.values():
        size = () if bare is None else _size(method, bare, misfits)
        columns = (method.where, method.what, method.positions, method.weights, method.rates, method.schedule)
        table.add_row(method.name, *columns, *size)
    notes = (
        *misfits,
        "",
        "Each method has five learning rates, the default in brackets. Every choice can be changed:",
        f"--site          {', '.join(site_names())}; several joined by +",
        f"--intervention  {', '.join(intervention_names())}",
        f"--positions     {', '.join(POLICIES)}",
        "--layers        all, or as in [0,1,2]",
    )
    return Group(table, *notes)


def _size(method: Method, bare: PreTrainedModel, misfits: list[str]) -> tuple[str, str]:
    """Number and share of the parameters; a method that does not fit this model is noted among `misfits`."""
    try:
        count = parameter_count(bare, method)
    except ValueError as error:
        misfits.append(f"{method.name} does not fit: {error}")
        return "-", "-"
    return f"{count:,}", f"{100 * count / bare.num_parameters():.4f}"
