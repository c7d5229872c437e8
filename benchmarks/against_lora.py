"""Post-block and LoRA over several seeds, from a sweep that has been run.

    trimtab sweep recipes/smol-epochs.yaml --together 6        # two hours on one core; resumes
    python benchmarks/against_lora.py --sweep runs/smol-epochs    # the page's table; seconds

So too for recipes/smol-inputs.yaml, smol-batches-of-two.yaml, smol-gemma3.yaml and smol-against-lora.yaml (which has
not been run). Seeds are compared on test where the sweep has it, else on validation.
Writes NAME.jsonl (a line for each method; NAME is "epochs" here) into benchmarks/results and a table of
docs/against-lora.md. Within a sweep all answered the same examples with the same seeds: the difference to LoRA is the
mean over both, its standard error that of examples and seeds together. Methods that are not finished are left out, but
LoRA has to be finished.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from _answered_cells import Answered, answered_cells, by_rate, points
from _harness import table
from _measured_parts import fill
from _sweep_options import sweep_options

from trimtab.files import write_text

REFERENCE = "lora"


def main() -> None:
    """Read, compare, fill the page."""
    options = sweep_options(__doc__, "smol-epochs")
    name = options.sweep.name.removeprefix("smol-")
    cells = answered_cells(options.sweep, "test") or answered_cells(options.sweep, "validation")
    loras = [each for each in cells if each.cell.family == REFERENCE]
    references = {kind(each): each for each in loras}
    if len(references) < len(loras):
        raise SystemExit(f"{options.sweep} has several cells of {REFERENCE!r} with the same examples and batches.")
    lines = []
    for each in cells:
        reference = references.get(kind(each))
        if reference is None:
            raise SystemExit(f"{REFERENCE!r} is not finished beside {each.cell.method} in {options.sweep}.")
        difference, error = points(each, reference)
        compared = {"minus_reference": difference, "minus_reference_error": error, "reference": reference.cell.method}
        lines.append({**each.line(reference), **compared})
    options.results.mkdir(parents=True, exist_ok=True)
    write_text(options.results / f"{name}.jsonl", "".join(json.dumps(each) + "\n" for each in lines))
    fill(options.docs / "against-lora.md", name, tables(lines))
    print(*tables(lines).values(), sep="\n")


def kind(answered: Answered) -> tuple[int, int]:
    """What a method and the LoRA that it is compared with have in common: examples, and batches."""
    training: Any = (answered.cell.settings or {})["training"]
    return training["examples"], training["batch_size"]


def tables(lines: Sequence[dict[str, Any]]) -> dict[str, str]:
    """A row for each method."""
    head = ["method", "parameters", "first seeds by rate, %", "rate", "seeds, %", "mean, %", f"minus {REFERENCE}"]
    return {"seeds": table(head, map(row, lines))}


def row(line: dict[str, Any]) -> list[str]:
    """Size, accuracy by rate and at the chosen one by seed, and the difference in points."""
    is_reference = line["method"] == line["reference"]
    return [
        line["method"],
        f"{line['trainable_parameters']:,}",
        by_rate(line),
        f"{line['learning_rate']:g}",
        ", ".join(f"{100 * accuracy:.1f}" for accuracy in line["accuracies"]),
        f"{100 * line['accuracy']:.1f}",
        "" if is_reference else f"{line['minus_reference']:+.1f} ± {line['minus_reference_error']:.1f}",
    ]


if __name__ == "__main__":
    main()
