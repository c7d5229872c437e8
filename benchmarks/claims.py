"""The paper's claims, one by one, on a sweep that has been run.

    trimtab sweep recipes/smol-gpu-tables.yaml --together 6 --workers 12    # one GPU; resumes
    python benchmarks/claims.py                                             # the page's table; seconds

A claim is that one method is better than another, or not worse by more than so many points. Both have answered the same
test examples, with the same seeds. The difference is the mean over them; its standard error has two parts, that of
the examples (the seeds averaged) and that of the seeds (the examples averaged). A claim holds, or does not, when twice
its error leaves no doubt, on the mean over the tasks; else it cannot be told. Writes claims.jsonl into
benchmarks/results and the table of docs/claims.md. Methods that are not finished on a task are left out there.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from _answered_cells import Answered, answered_cells, points
from _harness import table
from _measured_parts import fill
from _sweep_options import sweep_options

from trimtab.files import write_text

CERTAIN = 1.96
"""How many standard errors leave a doubt of 5 %."""


@dataclass(frozen=True)
class Claim:
    """That `method` is better than `than`, or at most `allowed` points worse."""

    sentence: str
    method: str
    than: str
    allowed: float = 0.0


CLAIMS = (
    Claim("Post-block is within 0.9 points of full fine-tuning", "post-block", "sft", 0.9),
    Claim("Post-block is better than ReFT", "post-block", "reft"),
    Claim("Post-block is better than LoRA, which has more parameters", "post-block", "lora"),
    Claim("A vector after the block is better than LoFiT", "1-vec", "lofit-all-heads"),
    Claim("A vector after the block is better than JoLA", "1-vec", "jola"),
    Claim("Rank 1 after the block is better than LoFiT", "post-block-r1", "lofit-all-heads"),
    Claim("Rank 1 after the block is better than JoLA", "post-block-r1", "jola"),
    Claim("Joint-orth is better than its weights alone", "joint-orth", "lora"),
    Claim("Joint-orth is better than its activations alone", "joint-orth", "post-block-r64"),
    Claim("Joint-orth is better than joint without the constraint", "joint-orth", "joint"),
    Claim("Joint-orth is better than LoRA of twice the rank", "joint-orth", "lora-r16"),
    Claim("A nonlinear map adds at most 1 point", "post-block", "post-block-nonlinear", 1.0),
    Claim("Ours: post-block-plus is at most 1 point behind LoRA", "post-block-plus", "lora", 1.0),
)


def main() -> None:
    """Judge the claims on the sweep of the tables."""
    judge(CLAIMS, "claims", "claims.md", sweep_options(__doc__, "smol-gpu"))


def judge(claims: Sequence[Claim], name: str, page: str, options: argparse.Namespace) -> None:
    """Read a sweep and compare; write NAME.jsonl and the part "NAME: one by one" of a page of docs/."""
    cells = answered_cells(options.sweep, "test")
    lines = [asdict(claim) | outcome(claim, cells) for claim in claims]
    options.results.mkdir(parents=True, exist_ok=True)
    write_text(options.results / f"{name}.jsonl", "".join(json.dumps(each) + "\n" for each in lines))
    fill(options.docs / page, name, tables(lines))
    print(*tables(lines).values(), sep="\n")


def outcome(claim: Claim, cells: Sequence[Answered]) -> dict[str, Any]:
    """The difference and its error on each task where both are finished, on the mean over these, the verdict."""
    found = {(each.place, each.cell.method): each for each in cells}
    pairs = [
        (place, ours, found[place, claim.than])
        for (place, method), ours in found.items()
        if method == claim.method and (place, claim.than) in found
    ]
    tasks = {place: points(ours, other) for place, ours, other in pairs}
    if not tasks:
        return {"tasks": {}, "mean": None, "error": None, "verdict": "not run"}
    mean = statistics.fmean(difference for difference, _ in tasks.values())
    error = math.hypot(*(error for _, error in tasks.values())) / len(tasks)
    return {"tasks": tasks, "mean": mean, "error": error, "verdict": verdict(mean + claim.allowed, error)}


def verdict(margin: float, error: float) -> str:
    """Whether a margin is above nought."""
    if abs(margin) < CERTAIN * error:
        return "cannot be told"
    return "holds" if margin >= 0 else "does not hold"


def tables(lines: Sequence[dict[str, Any]]) -> dict[str, str]:
    """A row for each claim: the difference on each task and on their mean, in points, and the verdict."""
    places = list(dict.fromkeys(place for line in lines for place in line["tasks"]))
    head = ["claim", "compared", *places, "mean", "verdict"]
    return {"one by one": table(head, (row(line, places) for line in lines))}


def row(line: dict[str, Any], places: Sequence[str]) -> list[str]:
    """The cells of a claim."""
    each = [line["tasks"].get(place) for place in places]
    mean = None if line["mean"] is None else (line["mean"], line["error"])
    compared = f"{line['method']} - {line['than']}"
    differences = [written(measured, line["allowed"]) for measured in (*each, mean)]
    return [line["sentence"], compared, *differences, line["verdict"]]


def written(measured: Sequence[float] | None, allowed: float) -> str:
    """A difference with its error, and yes or no where that leaves no doubt; nothing where there is none."""
    if measured is None:
        return ""
    difference, error = measured
    answer = {"holds": ", yes", "does not hold": ", no"}.get(verdict(difference + allowed, error), "")
    return f"{difference:+.1f} ± {error:.1f}{answer}"


if __name__ == "__main__":
    main()
