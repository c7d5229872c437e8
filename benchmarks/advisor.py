"""Does the advisor's first-order gain predict what training gains? Sites, thirds of the layers, maps and vectors.

    python benchmarks/advisor.py        # about 50 minutes on one core; runs that are done are not repeated

Before anything is trained, the gains of r = 8 and of a vector at each site, and after the block in each third of the
layers. Then each of these adapters is trained on the same examples at each of the rates; its measured gain is the fall
of the validation loss against the base, at its best rate. Spearman's correlation of the two is reported whatever it is,
for gains and, as the advisor ranks by it, for gains per parameter.
Writes advisor.json and advisor.md into benchmarks/results, advisor.svg and advice.svg into docs/assets.

    python benchmarks/advisor.py --measured     # nothing is measured: all but advice.svg anew from the rows of the JSON
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from _advisor_report import comparison, gain_correlations, markdown, per_parameter_correlations
from _validation import Validation, parser_of, settings_of

from trimtab.analysis.advice import RANKS, Advice
from trimtab.analysis.advisor import SITES, advise
from trimtab.analysis.choice import thirds
from trimtab.figures import save_svg
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
    parser.add_argument("--measured", action="store_true", help="take the rows of advisor.json as they are")
    options = parser.parse_args()
    committed = options.results / "advisor.json"
    record = json.loads(committed.read_text(encoding="utf-8")) if options.measured else _measure(options)
    record["spearman"] = gain_correlations(record["rows"])
    record["spearman_per_parameter"] = per_parameter_correlations(record["rows"])
    options.results.mkdir(parents=True, exist_ok=True)
    write_text(committed, json.dumps(record, indent=1) + "\n")
    write_text(options.results / "advisor.md", markdown(record))
    save_svg(comparison(record), options.docs / "assets" / "advisor.svg")
    for what in ("spearman", "spearman_per_parameter"):
        for name, found in record[what].items():
            print(what, name, {group: round(one["rho"], 2) for group, one in found.items()})


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    """What was predicted and what training has gained; draws the advice itself on the way."""
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
    save_svg(measured[True].figure(), options.docs / "assets" / "advice.svg")
    untrained = validation.score(base)
    count = len(decoder_layers(base)[1])
    rows = [_row(place, base, validation, advices, untrained["loss"], options) for place in places(options.rank)]
    settings = {name: value for name, value in settings_of(options).items() if name != "measured"}
    return {
        "environment": asdict(Environment.collect(device_name(base))),
        "settings": {**settings, "layers": count},
        "base": untrained,
        "rows": rows,
    }


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


if __name__ == "__main__":
    main()
