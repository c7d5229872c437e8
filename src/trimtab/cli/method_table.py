"""The methods as a table."""

from __future__ import annotations

import torch
from rich.console import Group
from rich.table import Table
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from trimtab.interventions import intervention_names
from trimtab.methods import METHODS, Method, parameter_count
from trimtab.models import EMBEDDED_MODEL, load_model
from trimtab.positions import POLICIES
from trimtab.sites import site_names


def method_table(model: str | None) -> Group:
    """One row a method; with a model, how many parameters it trains. Below, what the four choices can be.

    Raises:
        OSError: there is no such model, or its configuration cannot be read.
    """
    table = Table()
    table.add_column("method", no_wrap=True)
    table.add_column("what is trained")
    table.add_column("learning rate", no_wrap=True)
    skeleton = None if model is None else _skeleton(model)
    if skeleton is not None:
        table.title = f"{model}: {skeleton.num_parameters():,} parameters"
        table.add_column("parameters", justify="right", no_wrap=True)
        table.add_column("% of model", justify="right", no_wrap=True)
    for method in METHODS.values():
        rate = f"{method.learning_rate:g}, {method.schedule}"
        table.add_row(method.name, method.description, rate, *_size(method, skeleton))
    choices = (
        f"--site          {', '.join(site_names())}",
        f"--intervention  {', '.join(intervention_names())}",
        f"--positions     {', '.join(POLICIES)}",
        "--layers        all, or as in [0,1,2]",
    )
    return Group(table, "", "Each steering method can be changed:", *choices)


def _skeleton(model: str) -> PreTrainedModel:
    """The model without its weights (on the meta device): enough to count, whatever its size."""
    config = load_model(model)[0].config if model == EMBEDDED_MODEL else AutoConfig.from_pretrained(model)
    with torch.device("meta"):
        skeleton: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return skeleton


def _size(method: Method, skeleton: PreTrainedModel | None) -> tuple[str, ...]:
    if skeleton is None:
        return ()
    count = parameter_count(skeleton, method)
    return f"{count:,}", f"{100 * count / skeleton.num_parameters():.4f}"
