"""The paper's tables with our numbers: which number stands where."""

from __future__ import annotations

from dataclasses import replace

import pytest

from made_runs import LLAMA, made_run
from reports.made_outcomes import everything, outcomes, seeds
from trimtab.reports import Outcomes
from trimtab.reports.document import Table
from trimtab.reports.paper import TASKS
from trimtab.reports.sections import table_1, table_2, table_4


def tables(module: object, found: Outcomes) -> list[Table]:
    """The tables of a section."""
    return [part for part in module.parts(found) if isinstance(part, Table)]  # type: ignore[attr-defined]


def test_mean_deviation_and_difference_stand_beside_the_papers_numbers() -> None:
    """Of 80, 82 and 84 %: mean 82, sd 2; SFT has 83; the paper's row is the next one, for the same model and task."""
    found = outcomes(*seeds(83, method="sft"), *seeds(80, 82, 84))
    (table,) = tables(table_1, found)
    assert table.title == "Llama-3.2-1B"
    assert table.columns == ("method", "params (%)", "BoolQ", "mean difference")
    rows = [(row.cells, row.reference) for row in table.rows]
    assert rows == [
        (("SFT: sft", "100", "83.0 (0.0)", "0.0"), False),
        (("the paper", "100", "88.2 (0.0)", "0.0"), True),
        (("Ours: post-block", "0.042", "82.0 ± 2.0 (−1.0)", "−1.0"), False),
        (("the paper", "0.04", "86.2 (−2.0)", "−2.0"), True),
    ]


def test_columns_are_in_the_papers_order_and_a_mean_needs_every_task() -> None:
    """BoolQ before ListOps, whatever the recipe's order; other tasks behind. With a task missing there is no mean."""
    found = outcomes(
        *seeds(50, method="sft", task="listops-small"),
        *seeds(60, method="sft", task="listops"),
        *seeds(70, method="sft"),
        *seeds(40, task="listops"),
        *seeds(71),
    )
    (table,) = tables(table_1, found)
    assert table.columns[2:-1] == ("BoolQ", "ListOps", "listops-small")
    ours = next(row.cells for row in table.rows if row.cells[0] == "Ours: post-block")
    assert ours[2:] == ("71.0 (+1.0)", "40.0 (−20.0)", "–", "–")


def test_a_model_that_is_not_in_the_paper_gets_ranges_and_no_accuracy() -> None:
    """The differences that the paper has over its four models; nothing for a task that it does not have."""
    found = outcomes(*seeds(50, 52, model="smollm2-135m"), *seeds(50, model="smollm2-135m", task="listops-small"))
    (table,) = tables(table_1, found)
    ours, paper = table.rows
    assert ours.cells == ("Ours: post-block", "0.042", "51.0 ± 1.4", "50.0", "–")
    # of -2.0, -1.3, -0.7 and +0.7; it has no mean over these two tasks
    assert paper.cells == ("the paper, other models", "–", "(−2.0 to +0.7)", "–", "–")
    assert "not in the table of the paper" in table.note


@pytest.mark.parametrize(("model", "mean"), [(LLAMA, "−0.8"), ("smollm2-135m", "(−1.2 to +0.1)")])
def test_the_papers_mean_is_over_the_same_tasks_as_ours(model: str, mean: str) -> None:
    """Its model has -2.0, -0.7 and +0.3 on these three; the others' sums are -3.7, -0.1 and +0.4."""
    three = [run for task in ("boolq", "gsm8k", "aqua") for run in seeds(50, model=model, task=task)]
    (table,) = tables(table_1, outcomes(*three))
    assert table.rows[-1].cells[-1] == mean
    assert "over the tasks of this table" in table.note


def test_over_all_six_tasks_the_papers_mean_is_the_printed_one() -> None:
    """-0.2 for Llama-3.2-1B and -0.9 to +0.5 over the models."""
    for model, mean in ((LLAMA, "−0.2"), ("smollm2-135m", "(−0.9 to +0.5)")):
        (table,) = tables(table_1, outcomes(*(run for task in TASKS for run in seeds(50, model=model, task=task))))
        assert table.rows[-1].cells[-1] == mean


def test_of_two_positions_of_reft_validation_chooses() -> None:
    """`reft-last` is better on validation and worse on test: it is the paper's ReFT, and its label says so."""
    records = []
    for method, validation, test in (("reft", 60, 75), ("reft-last", 65, 70)):
        records += [made_run(method, rate=rate, split="validation", correct=validation) for rate in (1e-3, 2e-3)]
        records += seeds(test, method=method)
    (table,) = tables(table_1, outcomes(*records))
    assert table.rows[0].cells[0] == "ReFT: reft-last"
    assert table.rows[0].cells[2] == "70.0"


def test_two_settings_of_a_method_have_a_row_each() -> None:
    """Validation chooses a rate, not how many examples are trained on; the paper's row stands below both."""
    few = [*seeds(50, method="sft"), *seeds(45), *seeds(47, method="joint")]
    many = []
    for run in (*seeds(70, method="sft"), *seeds(60), *seeds(64, method="joint")):
        training = {**run.configuration["training"], "examples": 800}
        many.append(replace(run, run=f"{run.run}/800", configuration={**run.configuration, "training": training}))
    found = outcomes(*few, *many)
    rows = [row.cells for row in tables(table_1, found)[0].rows]
    assert [row[0] for row in rows if row[0].startswith(("Ours", "the paper"))] == [
        "the paper",
        "Ours: post-block [examples=400]",
        "Ours: post-block [examples=800]",
        "the paper",
    ]
    assert [row[2] for row in rows if row[0].startswith("Ours")] == ["45.0 (−5.0)", "60.0 (−10.0)"]
    joint = [(row.cells[0], row.cells[-2]) for row in tables(table_4, found)[0].rows[1:3]]
    assert joint == [("BoolQ [examples=400]", "47.0 (−3.0)"), ("BoolQ [examples=800]", "64.0 (−6.0)")]


def test_methods_of_no_table_stand_in_the_first_one() -> None:
    """Ours that the paper does not have; each of the paper's has one row, in its own table."""
    found = everything()
    first = [row.cells[0] for row in tables(table_1, found)[0].rows if not row.reference]
    assert first == [
        "SFT: sft",
        "LoRA: lora",
        "ReFT: reft-last",
        "Ours: post-block",
        "post-block-plus (not in the paper's tables)",
    ]
    second = [row.cells[0] for row in tables(table_2, found)[0].rows if not row.reference]
    assert second == [
        "LoFIT: lofit-all-heads",
        "JoLA: jola",
        "Ours (1-vec): 1-vec",
        "Ours r=1: post-block-r1",
    ]


def test_table_4_has_tasks_in_rows_and_methods_in_columns() -> None:
    """As in the paper: GSM8K first; the adapter is the one of rank 64; the paper's row under each task."""
    found = outcomes(
        *seeds(60, method="sft"),
        *seeds(64, method="joint-orth"),
        *seeds(61, method="post-block", changes={"r": 64}),
        *seeds(62, method="post-block"),
        *seeds(30, method="joint-orth", task="gsm8k"),
    )
    (table,) = tables(table_4, found)
    assert table.columns == ("task", "SFT", "LoRA (r=16)", "LoRA (r=8)", "Adapter", "Joint", "Joint-Orth")
    assert [row.cells for row in table.rows[1:]] == [
        ("GSM8K", "–", "–", "–", "–", "–", "30.0"),
        ("the paper", "32.2 (0.0)", "31.2 (−1.0)", "31.8 (−0.4)", "31.3 (−0.9)", "31.1 (−1.1)", "31.1 (−1.1)"),
        ("BoolQ", "60.0 (0.0)", "–", "–", "61.0 (+1.0)", "–", "64.0 (+4.0)"),
        ("the paper", "88.2 (0.0)", "88.4 (+0.2)", "84.7 (−3.5)", "86.2 (−2.0)", "88.4 (+0.2)", "88.5 (+0.3)"),
    ]


def test_table_4_needs_a_joint_method_and_its_models() -> None:
    """LoRA alone is no table 4; Llama-3.1-8B is in tables 1 and 2 of the paper and not in 4."""
    assert table_4.parts(outcomes(*seeds(60, method="lora"))) == []
    (table,) = tables(table_4, outcomes(*seeds(60, method="joint", model="meta-llama/Llama-3.1-8B")))
    assert table.rows[-1].cells[0] == "the paper, other models"


def test_the_sizes_are_said() -> None:
    """What was trained on and scored on, beside the paper's counts."""
    (table,) = tables(table_1, outcomes(*seeds(60, model=LLAMA)))
    assert "BoolQ: trained on 400, scored on 100 test; the paper 9,430 and 3,270." in table.note


def test_where_the_splits_come_from_is_said() -> None:
    """A score on something else than the paper's test split says so below the table."""
    (table,) = tables(table_1, outcomes(*seeds(60, 61, split_note="dev 60:20:20; NOT the official test split")))
    assert "100 test (splits: dev 60:20:20; NOT the official test split); the paper" in table.note


def test_missing_seeds_are_said() -> None:
    """A mean over one of three seeds is not shown as if it were the whole."""
    found = outcomes(*seeds(60))
    (cell,) = found.cells
    object.__setattr__(cell, "seeds", [0, 1, 2])
    (table,) = tables(table_1, found)
    assert table.rows[0].cells[2] == "60.0 [1 of 3 seeds]"


@pytest.mark.parametrize("method", ["sft", "post-block"])
def test_a_mean_difference_over_missing_seeds_says_so(method: str) -> None:
    """Seeds are missing in ours, or in the full fine-tuning that it is less: -10 and +2 are -4 either way."""
    made = outcomes(
        *seeds(50, method="sft"), *seeds(40), *seeds(60, method="sft", task="gsm8k"), *seeds(62, task="gsm8k")
    )
    cells = [
        replace(cell, seeds=[0, 1]) if (cell.method, cell.task) == (method, "boolq") else cell for cell in made.cells
    ]
    for found, mark in ((made, ""), (replace(made, cells=tuple(cells)), " [seeds missing]")):
        (table,) = tables(table_1, found)
        ours = next(row.cells for row in table.rows if row.cells[0] == "Ours: post-block")
        assert ours[-1] == f"−4.0{mark}"
