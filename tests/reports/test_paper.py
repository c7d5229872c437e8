"""The paper's numbers as they are shipped, and what they belong to."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from made_runs import LLAMA, made_run
from reports.made_outcomes import outcomes
from trimtab.reports.paper import METHODS, MODELS, SIZES, TASKS, Printed, is_method, paper_model, printed
from trimtab.tasks import task_names


def test_numbers_are_those_of_the_printed_tables() -> None:
    """A few of each table, as they stand in the paper."""
    one, two, four = printed(1), printed(2), printed(4)
    assert one["Llama-3.2-1B", "BoolQ", "Ours"] == Printed(86.2, -2.0, "0.04")
    assert one["gemma-3-1b", "ListOps", "LoRA"] == Printed(53.6, -12.2, "0.45")
    assert one["Llama-3.1-8B", "average", "Ours"] == Printed(None, 0.5, "0.02")
    assert two["Qwen 3 4B", "GSM8K", "JoLA"] == Printed(38.9, 1.9, "0.007")
    assert four["gemma-3-1b", "GSM8K", "Joint-Orth"] == Printed(24.4, 1.0, None)  # 24.4 - 23.4
    assert four["Llama-3.2-1B", "WinoGrande", "Adapter"] == Printed(52.4, -5.8, None)  # 52.4 - 58.2


def test_no_table_has_a_hole() -> None:
    """Every model, task and method of the tables has a number under the names that the report asks for."""
    for table, models, tasks in ((1, 4, 6), (2, 4, 6), (4, 3, 3)):
        numbers = printed(table)
        assert {method for _, _, method in numbers} == set(METHODS[table])
        places = {(model, task) for model, task, _ in numbers if task != "average"}
        assert len(places) == models * tasks
        assert {model for model, _ in places} <= set(MODELS)
        assert {task for _, task in places} <= set(TASKS.values())
        assert all(numbers[*place, method].accuracy is not None for place in places for method in METHODS[table])


def test_the_shipped_files_are_the_transcribed_ones(shared_data: Path) -> None:
    """Byte for byte, where those are at hand."""
    for shipped, name in (("paper_tables_1_2", "tables_1_2_accuracy"), ("paper_table_4", "table_4_joint")):
        source = shared_data.parent / "paper" / f"{name}.csv"
        assert files("trimtab.reports").joinpath("data", f"{shipped}.csv").read_bytes() == source.read_bytes()


def test_names_of_tasks_are_ours() -> None:
    """All six, and no small one among them."""
    assert set(TASKS) == set(task_names()) - {"listops-small"}
    assert set(SIZES) == set(TASKS.values())


def test_sizes_are_those_that_the_paper_prints(shared_data: Path) -> None:
    """Table 6 of appendix F.1: data set, train, test."""
    names = {"Winogrande": "WinoGrande"}
    text = (shared_data.parent / "paper" / "paper.txt").read_text().partition("| Dataset | Train | Test |")[2]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines()[1:7]]
    found = {names.get(row[0], row[0]): tuple(int(cell.replace(",", "")) for cell in row[1:3]) for row in rows}
    assert found == SIZES


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (LLAMA, "Llama-3.2-1B"),
        ("models/Llama-3.1-8B", "Llama-3.1-8B"),
        ("google/gemma-3-1b-pt", "gemma-3-1b"),
        ("Qwen/Qwen3-4B", "Qwen 3 4B"),
        ("smollm2-135m", None),
        ("google/gemma-3-270m", None),
        ("meta-llama/Llama-3.2-1B-tuned", None),
    ],
)
def test_a_model_is_the_papers_or_not(model: str, name: str | None) -> None:
    """By the last word of the hub's id or the path; near misses are other models."""
    assert paper_model(model) == name


def test_a_method_is_known_by_what_it_trains() -> None:
    """Not by its label, nor by its rate; another rank or another rule is another method."""
    cases = [
        (("post-block", {"r": 8}), "Ours", True),
        (("post-block", {"r": 64}), "Ours", False),
        (("post-block", {"normalize": True}), "Ours", False),
        (("post-block", {"r": 1}), "Ours r=1", True),
        (("post-block", {"schedule": "cosine"}), "Ours", False),
        (("post-block", {"warmup_ratio": 0.1}), "Ours", False),
        (("post-block", {"weight_decay": 0.01}), "Ours", False),
        (("post-block", {"rate_factors": {"down": 3.0}}), "Ours", False),
        (("lora", {}), "LoRA", True),
        (("lora-r16", {}), "LoRA", False),
    ]
    for (method, changes), name, same in cases:
        found = outcomes(made_run(method, changes, label="mine", rate=7e-3))
        (cell,) = found.cells
        table = 2 if name.endswith("r=1") else 1
        assert any(is_method(cell, found.configuration(cell) or {}, *ours) for ours in METHODS[table][name]) is same
