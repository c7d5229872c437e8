"""Every number that docs/theory.md quotes, from layers of real models and from random draws.

    python benchmarks/theory_numbers.py --gemma models/gemma-3-270m    # about 2 minutes on one core

Without --gemma (a name or a directory; the weights need their licence accepted) its rows are left out. Everything is
computed in float64 from weights and hidden states in float32. Writes theory.json and theory.md into benchmarks/results;
docs/theory.md has the tables of the latter, and a test compares the two.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from _harness import HERE, table
from _theory_bounds import CASES, attention_looseness, mlp_looseness, random_looseness
from _theory_layers import SHARES, TEXT, first_order_slopes, mlp_with_norms, post_block, reach

from trimtab.analysis.texts import unrelated_texts
from trimtab.files import write_text
from trimtab.models import EMBEDDED_MODEL, context_length, load_model
from trimtab.results import Environment

Numbers = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """A model and the layers that are looked at."""

    label: str
    name: str
    layers: list[int]


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=EMBEDDED_MODEL)
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 15, 27])
    parser.add_argument("--gemma", help="a name or a directory of Gemma 3")
    parser.add_argument("--gemma_layers", type=int, nargs="+", default=[2, 9, 15])
    parser.add_argument("--tokens", type=int, default=1800, help="for the post-block map, more than the width")
    parser.add_argument("--draws", type=int, default=10, help="of random weights, for each width")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    options = parser.parse_args()
    subjects = [Subject("SmolLM2-135M", options.model, options.layers)]
    if options.gemma is not None:
        subjects.append(Subject("gemma-3-270m", options.gemma, options.gemma_layers))
    found: Numbers = {"layers": {}, "bounds": {}}
    for subject in subjects:
        found["layers"][subject.label] = _of_layers(subject, options)
    found["bounds"] = {**_seeded(options, random_looseness, options.draws), **_of_bounds(subjects[0], options)}
    record = {
        "environment": asdict(Environment.collect("cpu")),
        "settings": {key: value for key, value in vars(options).items() if not isinstance(value, Path)},
        "results": found,
    }
    options.results.mkdir(parents=True, exist_ok=True)
    write_text(options.results / "theory.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    write_text(options.results / "theory.md", text := markdown(found))
    print(text)


def _of_layers(subject: Subject, options: argparse.Namespace) -> dict[str, Numbers]:
    """What each layer shows on a sentence and on the texts."""
    model, tokenizer = load_model(subject.name, dtype="float32", device="cpu")
    sentence = tokenizer(TEXT, return_tensors="pt").input_ids
    longest = min(options.tokens, context_length(model) or options.tokens)
    texts = tokenizer("\n\n".join(unrelated_texts()), return_tensors="pt").input_ids[:, :longest]
    found = {}
    for index in subject.layers:
        print(f"{subject.label}, layer {index}", file=sys.stderr)
        layer = mlp_with_norms(model, index, sentence)
        found[str(index)] = {
            "slopes": _seeded(options, first_order_slopes, layer),
            "reach": _seeded(options, reach, layer),
            "post_block": _seeded(options, post_block, mlp_with_norms(model, index, texts)),
            "of": len(model.get_decoder().layers),
        }
    return found


def _of_bounds(subject: Subject, options: argparse.Namespace) -> dict[str, Numbers]:
    """How loose the bounds are on the subject's layers."""
    model, tokenizer = load_model(subject.name, dtype="float32", device="cpu")
    sentence = tokenizer(TEXT, return_tensors="pt").input_ids
    rows: dict[str, Numbers] = {f"{subject.label}, MLP": {}, f"{subject.label}, attention": {}}
    for index in subject.layers:
        layer = mlp_with_norms(model, index, sentence)
        for row, measure in zip(rows.values(), (mlp_looseness, attention_looseness), strict=True):
            row[f"layer {index}"] = _seeded(options, measure, model, index, layer, sentence)
    return rows


def _seeded(options: argparse.Namespace, measure: Callable[..., Any], *arguments: Any) -> Any:
    """A measurement whose random numbers do not depend on those before it."""
    torch.manual_seed(options.seed)
    return measure(*arguments)


def markdown(found: Numbers) -> str:
    """The tables."""
    layers = [
        (f"{label}, {index} of {numbers['of']}", numbers)
        for label, by_layer in found["layers"].items()
        for index, numbers in by_layer.items()
    ]
    sections = {
        "Slopes": table(
            ["model, layer", *(layers[0][1]["slopes"])],
            [[name, *(f"{slope:.3f}" for slope in numbers["slopes"].values())] for name, numbers in layers],
        ),
        "Reach": table(
            [
                "model, layer",
                "condition of J",
                *(f"dh ≤ {100 * share:g} % of h" for share in SHARES),
                "dh that reaches all",
            ],
            [[name, *_reach_cells(numbers["reach"])] for name, numbers in layers],
        ),
        "Post-block": table(
            ["model, layer", "missed", "by principal angles alone", "the MLP's share of the block's output"],
            [[name, *_post_block_cells(numbers["post_block"])] for name, numbers in layers],
        ),
        "Bounds": table(
            ["bound / actual", *CASES],
            [[_bound_label(row, list(by_size)), *_bound_cells(by_size)] for row, by_size in found["bounds"].items()],
        ),
    }
    return "\n".join(f"## {title}\n\n{text}" for title, text in sections.items())


def _reach_cells(numbers: Numbers) -> list[str]:
    missed = [" / ".join(f"{share:.2f}" for share in pair) for pair in numbers["missed"].values()]
    return [_rounded(numbers["condition"]), *missed, f"{numbers['exact_length']:.2f} of h"]


def _post_block_cells(numbers: Numbers) -> list[str]:
    low, high = numbers["angle_bounds"]
    return [f"{numbers['error']:.3f}", f"{low:.2f} to {high:.2f}", f"{numbers['share']:.2f}"]


def _bound_label(row: str, sizes: list[str]) -> str:
    """The row with its widths or layers, as in "MLP, layer 2 / 15"."""
    return " / ".join([f"{row}, {sizes[0]}", *(size.rpartition(" ")[2] for size in sizes[1:])])


def _bound_cells(by_size: dict[str, dict[str, float]]) -> list[str]:
    """A cell a case, with a number for each width or layer; empty where the case does not exist."""
    return [" / ".join(_rounded(each[case]) for each in by_size.values() if case in each) for case in CASES]


def _rounded(value: float) -> str:
    """Two significant digits; four where the value is near 1."""
    if value < 2:
        return f"{value:.3f}"
    value = float(f"{value:.1e}")
    return f"{value:,.0f}" if value >= 10 else f"{value:g}"


if __name__ == "__main__":
    main()
