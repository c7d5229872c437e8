"""Every number that docs/theory.md quotes, from layers of real models and from random draws.

    python benchmarks/theory_numbers.py --gemma models/gemma-3-270m    # about 8 minutes on one core
    python benchmarks/theory_numbers.py --gemma models/gemma-3-270m --part linear_reach    # 6 of them

Without --gemma (a name or a directory; the weights need their licence accepted) its rows are left out. Everything is
computed in float64 from weights and hidden states in float32. Writes theory.json and theory.md into benchmarks/results;
docs/theory.md has the tables of the latter, and a test compares the two. What the best linear steering reaches takes
longest and can be measured alone; theory.json then keeps its other numbers, and says where each of the two comes from.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from _harness import HERE, table
from _theory_bounds import CASES, attention_looseness, mlp_looseness, random_looseness
from _theory_layers import SHARES, TEXT, first_order_slopes, mlp_with_norms, post_block, reach
from _theory_reach import LINEAR_SHARES, linear_reach
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

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
    parser.add_argument("--tokens", type=int, default=1800, help="for the linear maps, more than the width")
    parser.add_argument("--draws", type=int, default=10, help="of random weights, for each width")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", choices=["all", "linear_reach"], default="all", help="what is measured anew")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    options = parser.parse_args()
    subjects = [Subject("SmolLM2-135M", options.model, options.layers)]
    if options.gemma is not None:
        subjects.append(Subject("gemma-3-270m", options.gemma, options.gemma_layers))
    path = options.results / "theory.json"
    if options.part == "all":
        record = _measured(options, _all_but_linear_reach(subjects, options))
    elif path.exists():
        record = json.loads(path.read_text(encoding="utf-8"))
    else:
        parser.error(f"{path} has no numbers that --part {options.part} could be added to: leave --part out.")
    by_subject = {subject.label: _linear_reach(subject, options) for subject in subjects}
    record["linear_reach"] = _measured(options, by_subject)
    options.results.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    write_text(options.results / "theory.md", text := markdown(record))
    print(text)


def _measured(options: argparse.Namespace, found: Numbers) -> Numbers:
    """Numbers and where they come from."""
    return {
        "environment": asdict(Environment.collect("cpu")),
        "settings": {key: value for key, value in vars(options).items() if not isinstance(value, Path)},
        "results": found,
    }


def _all_but_linear_reach(subjects: list[Subject], options: argparse.Namespace) -> Numbers:
    layers = {subject.label: _of_layers(subject, options) for subject in subjects}
    bounds = {**_seeded(options, random_looseness, options.draws), **_of_bounds(subjects[0], options)}
    return {"layers": layers, "bounds": bounds}


def _of_layers(subject: Subject, options: argparse.Namespace) -> dict[str, Numbers]:
    """What each layer shows on a sentence and on the texts."""
    model, tokenizer = load_model(subject.name, dtype="float32", device="cpu")
    sentence = tokenizer(TEXT, return_tensors="pt").input_ids
    texts = _texts(model, tokenizer, options)
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


def _linear_reach(subject: Subject, options: argparse.Namespace) -> dict[str, Numbers]:
    """What one linear map reaches in each layer, on the texts."""
    model, tokenizer = load_model(subject.name, dtype="float32", device="cpu")
    texts = _texts(model, tokenizer, options)
    found = {}
    for index in subject.layers:
        print(f"{subject.label}, layer {index}, linear steering", file=sys.stderr)
        found[str(index)] = _seeded(options, linear_reach, mlp_with_norms(model, index, texts))
        found[str(index)]["of"] = len(model.get_decoder().layers)
    return found


def _texts(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, options: argparse.Namespace) -> Tensor:
    """Tokens (1, n) of the texts that come with trimtab, no more than the model reads."""
    longest = min(options.tokens, context_length(model) or options.tokens)
    return tokenizer("\n\n".join(unrelated_texts()), return_tensors="pt").input_ids[:, :longest]


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


def markdown(record: Numbers) -> str:
    """The tables."""
    found = record["results"]
    layers, linear = _rows(found["layers"]), _rows(record["linear_reach"]["results"])
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
        "Linear reach": table(
            ["model, layer", *(f"dh ≤ {100 * share:g} % of h" for share in LINEAR_SHARES), "behind the MLP"],
            [[name, *_linear_cells(numbers)] for name, numbers in linear],
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


def _rows(by_label: dict[str, dict[str, Numbers]]) -> list[tuple[str, Numbers]]:
    """Each layer with its name, as in "SmolLM2-135M, 2 of 30"."""
    return [
        (f"{label}, {index} of {numbers['of']}", numbers)
        for label, by_layer in by_label.items()
        for index, numbers in by_layer.items()
    ]


def _linear_cells(numbers: Numbers) -> list[str]:
    """What is missed on the tokens fitted to, what provably must be, and what is on unseen tokens."""
    in_front = [
        f"{each['missed'][0]:.2f} (≥ {math.floor(100 * each['at_least']) / 100:.2f}) / {each['missed'][2]:.2f}"
        for each in numbers["in_front"].values()
    ]
    return [*in_front, " / ".join(f"{share:.2f}" for share in numbers["behind"])]


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
