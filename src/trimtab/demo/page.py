"""The page: one HTML file that needs nothing else, neither a network nor another file."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trimtab.demo.outcomes import Layout, Outcome
from trimtab.demo.settings import BASE, SOURCE, DemoSettings
from trimtab.demo.table import COLUMNS, cells
from trimtab.figures import page_colours
from trimtab.files import write_text

if TYPE_CHECKING:
    from trimtab.demo.figures import Drawn


def require_report_packages() -> None:
    """Raise ModuleNotFoundError if what draws the page is not installed; before anything is trained."""
    missing = [name for name in ("matplotlib", "jinja2") if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(f"The page needs {' and '.join(missing)}. Run: pip install 'trimtab[report]'")


def write_page(outcomes: Sequence[Outcome], settings: DemoSettings, layout: Layout) -> None:
    """Write index.html, and each figure as a file of its own beside it."""
    figures = figures_of(outcomes)
    for name, figure in figures.items():
        layout.figure(name).parent.mkdir(parents=True, exist_ok=True)
        write_text(layout.figure(name), figure.file)
    write_text(layout.page, render(outcomes, settings, figures))


def figures_of(outcomes: Sequence[Outcome]) -> dict[str, Drawn]:
    """The figures of the page by name."""
    # Only here: the library and its other verbs work without the packages that draw.
    from trimtab.demo.figures import accuracy_against_parameters, accuracy_bars, loss_curves

    return {
        "accuracy": accuracy_bars(outcomes),
        "parameters": accuracy_against_parameters(outcomes),
        "loss": loss_curves(outcomes),
    }


def render(outcomes: Sequence[Outcome], settings: DemoSettings, figures: dict[str, Drawn]) -> str:
    """The page as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("trimtab.demo", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    base = outcomes[0]
    newest = outcomes[-1].evaluation.environment
    return environment.get_template("page.html.j2").render(
        colours=Markup(page_colours()),  # noqa: S704
        settings=settings,
        source=SOURCE,
        dtype=base.evaluation.settings["dtype"],
        base=base,
        trained=[outcome for outcome in outcomes if outcome.training],
        columns=COLUMNS,
        rows=[cells(outcome) for outcome in outcomes],
        figures={name: (Markup(figure.inline), figure.alt) for name, figure in figures.items()},  # noqa: S704
        rules=[(outcome.name, _rule(outcome)) for outcome in outcomes if outcome.training],
        examples=_examples(outcomes, settings.shown_examples),
        environment=newest,
    )


def _rule(outcome: Outcome) -> dict[str, Any]:
    """What a method was trained with, from the recipe that its run left."""
    method = outcome.recipe["method"]
    adapter = ", ".join(f"{key} = {value}" for key, value in method["adapter"].items())
    factors = "".join(f", x {factor:g} for {name}" for name, factor in method.get("rate_factors", {}).items())
    warmup = f", warm-up {100 * method['warmup_ratio']:g}\N{NO-BREAK SPACE}%" if method["warmup_ratio"] else ""
    return {
        "what": method["description"],
        "adapter": adapter or "-",
        "rate": f"rate {method['learning_rate']:g}{factors}, {method['schedule']}{warmup}, "
        f"weight decay {method['weight_decay']:g}",
    }


def _examples(outcomes: Sequence[Outcome], count: int) -> list[dict[str, Any]]:
    """The first `count` test examples with the answer of each outcome: not chosen, so not flattering."""
    shown = []
    for index, asked in enumerate(outcomes[0].records[:count]):
        answers = [(outcome.name, outcome.records[index]) for outcome in outcomes]
        if any(record["id"] != asked["id"] for _, record in answers):
            raise ValueError(f"The answers in {BASE} and in the methods belong to different examples.")
        shown.append({"prompt": asked["prompt"].strip(), "label": asked["label"], "answers": answers})
    return shown
