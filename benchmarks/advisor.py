"""Does the advisor's first-order gain predict what training gains? Sites, thirds of the layers, maps and vectors.

    python benchmarks/advisor.py        # about 50 minutes on one core; runs that are done are not repeated

Before anything is trained, the gains of r = 8 and of a vector at each site, and after the block in each third of the
layers. Then each of these adapters is trained on the same examples at each of the rates; its measured gain is the fall
of the validation loss against the base, at its best rate. Spearman's correlation of the two is reported whatever it is.
Writes advisor.json and advisor.md into benchmarks/results, advisor.svg and advice.svg into docs/assets.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from _harness import table
from _validation import Validation, parser_of, settings_of
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from trimtab.analysis.advice import RANKS, Advice
from trimtab.analysis.advisor import SITES, advise
from trimtab.analysis.choice import thirds
from trimtab.figures import MARKERS, SERIES, figure, save_svg
from trimtab.files import write_text
from trimtab.methods import Method, get_method, parameter_count
from trimtab.models import context_length, device_name, load_model
from trimtab.results import Environment
from trimtab.sites import decoder_layers
from trimtab.tasks import get_task
from trimtab.training import TrainingSettings
from trimtab.training.batch_losses import batch_losses, supervised_tokens
from trimtab.training.data import supervised_dataset

THIRDS = ("first third", "middle third", "last third")
PREDICTORS: dict[str, dict[str, Any]] = {
    "relative, spectral": {"radius": "relative", "ball": "spectral"},
    "relative, Frobenius": {"radius": "relative", "ball": "frobenius"},
    "absolute, spectral": {"radius": "absolute", "ball": "spectral"},
    "absolute, Frobenius": {"radius": "absolute", "ball": "frobenius"},
    "relative, spectral, reads h": {"radius": "relative", "ball": "spectral", "normalize": False},
    "absolute, spectral, reads h": {"radius": "absolute", "ball": "spectral", "normalize": False},
}
"""The first is the advisor's default and what was to be tested; the others show what its choices do."""


@dataclass(frozen=True)
class Place:
    """Where is trained, and whether a map of rank r or a vector (rank None)."""

    site: str
    layers: str
    rank: int | None

    @property
    def label(self) -> str:
        """As the figure names it."""
        where = self.site if self.layers == "all" else self.layers
        return f"{where}, {'vector' if self.rank is None else f'r={self.rank}'}"

    def layer_indices(self, count: int) -> tuple[int, ...]:
        """Of `count` layers those that are steered."""
        groups = dict(zip(("all", *THIRDS), (tuple(range(count)), *thirds(range(count))), strict=True))
        return groups[self.layers]

    def method(self, count: int, rate: float) -> Method:
        """What the advisor suggests there."""
        where = {"site": self.site, "layers": None if self.layers == "all" else list(self.layer_indices(count))}
        if self.rank is None:
            return get_method("1-vec", learning_rate=rate, **where)
        start = {"init_weights": "gradient", "use_bias": False}
        return get_method("post-block-normalized", r=self.rank, learning_rate=rate, **start, **where)


def places(rank: int) -> list[Place]:
    """Each site in all layers, and each third of the layers after the block; a map and a vector."""
    where = [(site, "all") for site in SITES] + [("block", third) for third in THIRDS]
    return [Place(site, layers, kind) for kind in (rank, None) for site, layers in where]


def main() -> None:
    """Predict, train, compare, write."""
    parser = parser_of(__doc__, "advisor")
    parser.add_argument("--examples", type=int, default=400, help="that are trained on")
    parser.add_argument("--advice_examples", type=int, default=64, help="of these, that the advisor sees")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rates", type=float, nargs="+", default=[5e-4, 2e-3], help="of the maps")
    parser.add_argument("--vector_rates", type=float, nargs="+", default=[1e-3, 1e-2])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    base, tokenizer = load_model(options.model, dtype=options.dtype)
    task = get_task(options.task)
    validation = Validation(task, tokenizer, options.validation, options.answers)
    seen = supervised_dataset(task.load("train", limit=options.advice_examples), tokenizer, context_length(base))
    losses = partial(batch_losses, dataset=seen, batch_size=options.batch_size)
    measured = {
        normalize: advise(base, losses, supervised_tokens(seen), kept=max(RANKS[-1], options.rank), normalize=normalize)
        for normalize in (True, False)
    }
    advices = {
        name: replace(measured[choice.get("normalize", True)], ball=choice["ball"], radius=choice["radius"])
        for name, choice in PREDICTORS.items()
    }
    untrained = validation.score(base)
    count = len(decoder_layers(base)[1])
    rows = [_row(place, base, validation, advices, untrained["loss"], options) for place in places(options.rank)]
    correlations = {name: _correlations(rows, name) for name in PREDICTORS}
    record = {
        "environment": asdict(Environment.collect(device_name(base))),
        "settings": {**settings_of(options), "layers": count},
        "base": untrained,
        "rows": rows,
        "spearman": correlations,
    }
    options.results.mkdir(parents=True, exist_ok=True)
    write_text(options.results / "advisor.json", json.dumps(record, indent=1) + "\n")
    write_text(options.results / "advisor.md", markdown(rows, correlations))
    first = next(iter(PREDICTORS))
    save_svg(advices[first].figure(), options.docs / "assets" / "advice.svg")
    save_svg(comparison(rows, first, correlations[first]), options.docs / "assets" / "advisor.svg")
    for name, found in correlations.items():
        print(name, {group: round(one["rho"], 2) for group, one in found.items()})


def _row(
    place: Place,
    base: Any,
    validation: Validation,
    advices: dict[str, Advice],
    base_loss: float,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """What was predicted for a place and what training there has gained."""
    count = len(decoder_layers(base)[1])
    settings = TrainingSettings(examples=options.examples, batch_size=options.batch_size)
    trained = []
    for rate in options.vector_rates if place.rank is None else options.rates:
        method = place.method(count, rate)
        name = f"{place.site}-{place.layers}-{place.rank or 'vector'}-{rate:g}".replace(" ", "-")
        trained.append({"rate": rate, **validation.score_of_run(base, method, options.runs / name, settings)})
        print(name, trained[-1], flush=True)
    best = min(trained, key=lambda one: one["loss"])
    layers = place.layer_indices(count)
    return {
        **asdict(place),
        "label": place.label,
        "parameters": parameter_count(base, place.method(count, 1e-3)),
        "predicted": {name: advice.choice(place.site, place.rank, layers).gain for name, advice in advices.items()},
        "measured": base_loss - best["loss"],
        "accuracy": best.get("accuracy"),
        "trained": trained,
    }


def _correlations(rows: list[dict[str, Any]], predictor: str) -> dict[str, dict[str, float]]:
    """Spearman's rho of predicted and measured gain: of all, of the maps, of the vectors, each with its n and p."""
    groups = {
        "all": rows,
        "maps": [row for row in rows if row["rank"] is not None],
        "vectors": [row for row in rows if row["rank"] is None],
    }
    found = {}
    for name, members in groups.items():
        pairs = np.array([(row["predicted"][predictor], row["measured"]) for row in members])
        result = spearmanr(pairs[:, 0], pairs[:, 1])
        found[name] = {"rho": float(result.statistic), "n": len(members), "p": float(result.pvalue)}
    return found


def markdown(rows: list[dict[str, Any]], correlations: dict[str, dict[str, dict[str, float]]]) -> str:
    """What was predicted by the advisor's default and what was measured; and how well each predictor ranks."""
    first = next(iter(PREDICTORS))
    measured = []
    for row in rows:
        best = min(row["trained"], key=lambda one: one["loss"])
        losses = ", ".join(f"{one['loss']:.3f} ({one['rate']:g})" for one in row["trained"])
        accuracy = (
            "" if row["accuracy"] is None else f"{100 * row['accuracy']:.1f} ± {100 * best['standard_error']:.1f}"
        )
        predicted = f"{float(format(row['predicted'][first], '.3g')):,.0f}"  # three figures
        parameters = f"{row['parameters']:,}"
        measured.append([row["label"], parameters, predicted, f"{row['measured']:.3f}", losses, accuracy])
    head = ["adapter", "parameters", "predicted gain", "measured gain, nats", "loss (rate)", "accuracy, %"]
    ranks = [
        [name, *(f"{one['rho']:.2f} (p = {one['p']:.2f})" for one in found.values())]
        for name, found in correlations.items()
    ]
    groups = [f"{name}, n = {one['n']:.0f}" for name, one in correlations[first].items()]
    return f"{table(head, measured)}\n{table(['predictor', *groups], ranks)}"


def comparison(rows: list[dict[str, Any]], predictor: str, correlations: dict[str, dict[str, float]]) -> Figure:
    """Measured over predicted gain, a point an adapter: the marker says where, a hollow one is a vector's."""
    with figure("advisor", 8.8, 4.8) as drawing:
        axes = drawing.add_subplot()
        where = list(dict.fromkeys((row["site"], row["layers"]) for row in rows))
        for row in rows:
            index = where.index((row["site"], row["layers"]))
            colour = SERIES[index % len(SERIES)]
            axes.scatter(
                row["predicted"][predictor],
                row["measured"],
                label=row["label"].partition(",")[0] if row["rank"] is not None else None,
                marker=MARKERS[index],
                s=60,
                linewidths=1.6,
                edgecolors=colour,
                facecolors="none" if row["rank"] is None else colour,
            )
        rank = next(row["rank"] for row in rows if row["rank"] is not None)
        drawing.legend(loc="outside right upper", title=f"filled: r = {rank}\nhollow: a vector")
        axes.set_xscale("log")
        axes.set_xlabel("predicted: first-order gain, nats an answer token")
        axes.set_ylabel("measured: fall of the validation loss,\nnats an answer token")
        words = ", ".join(f"{name} {one['rho']:.2f} (n = {one['n']})" for name, one in correlations.items())
        axes.set_title(f"Spearman's correlation: {words}", loc="left")
        axes.grid()
    return drawing


if __name__ == "__main__":
    main()
