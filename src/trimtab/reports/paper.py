"""The paper's numbers, and which of our models, tasks and methods they belong to: arXiv 2603.00425, tables 1, 2, 4."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any

from trimtab.methods import get_method
from trimtab.results import CellRecord
from trimtab.sweeps.configuration import canonical_json

SOURCE = (
    "Adila, Cooper, Yun, Trost, Sala: Weight Updates as Activation Shifts: A Principled Framework for Steering "
    "(arXiv 2603.00425, 2026)"
)
SFT = "SFT"

MODELS = {
    "Llama-3.2-1B": ("Llama-3.2-1B", "Llama-3.2-1B-Instruct"),
    "gemma-3-1b": ("gemma-3-1b-pt", "gemma-3-1b-it"),
    "Qwen 3 4B": ("Qwen3-4B", "Qwen3-4B-Base"),
    "Llama-3.1-8B": ("Llama-3.1-8B", "Llama-3.1-8B-Instruct"),
}
"""The paper's name of a model, and the last words of the hub's ids. Its text does not say which of the two it means."""

TASKS = {
    "boolq": "BoolQ",
    "winogrande": "WinoGrande",
    "arc_challenge": "ARC-Challenge",
    "gsm8k": "GSM8K",
    "aqua": "AQuA",
    "listops": "ListOps",
}
"""Our name of a task, and the paper's, in the order of its columns. `listops-small` is another task."""

SIZES = {
    "BoolQ": (9430, 3270),
    "WinoGrande": (9250, 1770),
    "ARC-Challenge": (1120, 1170),
    "GSM8K": (8790, 1320),  # as printed, where 7,473 and 1,319 are published: train with test, and rounded
    "AQuA": (97467, 254),
    "ListOps": (96000, 2000),
}
"""How many examples the paper prints for training and test (appendix F.1, table 6)."""

METHODS: dict[int, dict[str, tuple[tuple[str, Mapping[str, Any]], ...]]] = {
    1: {
        SFT: (("sft", {}),),
        "LoRA": (("lora", {}),),
        "ReFT": (("reft", {}), ("reft-last", {})),  # of the two, validation chooses (appendix F.2)
        "Ours": (("post-block", {}),),
    },
    2: {
        "LoFIT": (("lofit-all-heads", {}),),
        "JoLA": (("jola", {}),),
        "Ours (1-vec)": (("1-vec", {}),),
        "Ours r=1": (("post-block-r1", {}),),
    },
    4: {
        SFT: (("sft", {}),),
        "LoRA (r=16)": (("lora-r16", {}),),
        "LoRA (r=8)": (("lora", {}),),
        "Adapter": (("post-block", {"r": 64}),),  # as large as LoRA of rank 8 (section 6.4)
        "Joint": (("joint", {}),),
        "Joint-Orth": (("joint-orth", {}),),
    },
}
"""The methods of each table by the paper's names, and ours with what is different from the named row."""

_SHORT = {"WinoG": "WinoGrande"}


@dataclass(frozen=True)
class Printed:
    """What the paper prints: accuracy in percent, its difference to SFT, and the share of parameters, in its words."""

    accuracy: float | None
    delta: float | None
    parameters: str | None


@cache
def printed(table: int) -> dict[tuple[str, str, str], Printed]:
    """The numbers of a table, by the paper's model, task and method; the task of table 1's last column is "average"."""
    name = "paper_table_4.csv" if table == 4 else "paper_tables_1_2.csv"
    text = files("trimtab.reports").joinpath("data", name).read_text(encoding="utf-8")
    rows = [row for row in csv.DictReader(text.splitlines()) if row.get("table") in (None, str(table))]
    models = {model.casefold(): model for model in MODELS}
    found = {}
    for row in rows:
        task = _SHORT.get(row["task"], row["task"])
        accuracy, delta = (float(row[key]) if row.get(key) else None for key in ("accuracy", "delta_vs_sft"))
        found[models[row["model"].casefold()], task, row["method"]] = Printed(accuracy, delta, row.get("params_pct"))
    if table == 4:
        found = {place: _with_delta(each, found[place[0], place[1], SFT]) for place, each in found.items()}
    return found


def paper_model(model: str) -> str | None:
    """The paper's name of a model, or None if it is not in the paper."""
    last = PurePosixPath(model).name
    return next((name for name, ids in MODELS.items() if last in ids), None)


def is_method(cell: CellRecord, configuration: Mapping[str, Any], name: str, changes: Mapping[str, Any]) -> bool:
    """Whether a cell has trained what `get_method(name, **changes)` trains, and by its rule, whatever it is called.

    The rule is schedule, warm-up, weight decay and factors on the rate; the rate itself is chosen on validation.

    Args:
        cell: the cell.
        configuration: of one of its runs.
        name: our name of the method.
        changes: what is different from the named row.
    """
    wanted, found = get_method(name, **changes).to_dict(), configuration["method"]
    parts = ("adapter", "schedule", "warmup_ratio", "weight_decay", "rate_factors")
    same = (canonical_json(found.get(part)) == canonical_json(wanted.get(part)) for part in parts)
    return cell.family == wanted["family"] and all(same)


def _with_delta(one: Printed, full: Printed) -> Printed:
    """Table 4 prints no differences: those of its accuracies."""
    if one.accuracy is None or full.accuracy is None:
        return one
    return Printed(one.accuracy, round(one.accuracy - full.accuracy, 1), one.parameters)
