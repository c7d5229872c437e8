"""The sections: found by their folder, and what their numbers and figures are."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from made_runs import made_run
from reports.made_outcomes import everything, outcomes, seeds
from trimtab.reports import sections as package
from trimtab.reports.document import Paragraph, Picture, Table
from trimtab.reports.sections import contents, cost, every_cell, frontier, learning_rates, loss_curves, sections


def test_a_section_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new file of the folder is a new section, in its place."""
    text = (
        "from trimtab.reports.document import Paragraph\nTITLE = 'Mine'\nORDER = 5\n"
        "def parts(outcomes):\n    return [Paragraph(f'{len(outcomes.cells)} cells')]\n"
    )
    (tmp_path / "mine.py").write_text(text)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    found = sections(outcomes(*seeds(50)))
    sys.modules.pop(f"{package.__name__}.mine")
    assert found[1].title == "Mine"
    assert found[1].parts == [Paragraph("1 cells")]


def test_a_file_that_is_no_section_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what the file lacks."""
    (tmp_path / "half.py").write_text("TITLE = 'Half'\n")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    with pytest.raises(AttributeError, match="half is in the folder of sections and has no ORDER, parts"):
        sections(outcomes(*seeds(50)))
    sys.modules.pop(f"{package.__name__}.half")


def test_the_frontier_is_what_no_cheaper_method_reaches() -> None:
    """Against the definition, on random points."""
    rng = random.Random(0)
    records = [
        made_run(label=str(i), trainable_parameters=rng.randrange(100, 110), correct=rng.randrange(40, 60))
        for i in range(60)
    ]
    cells = outcomes(*records).cells
    points = {(c.trainable_parameters, c.accuracy) for c in cells}
    wanted = {
        (count, share)
        for count, share in points
        if not any((a <= count and b > share) or (a < count and b == share) for a, b in points)
    }
    found = [(cell.trainable_parameters, cell.accuracy) for cell in frontier.frontier(cells)]
    assert set(found) == wanted
    assert found == sorted(found)


def test_every_cell_has_its_errors() -> None:
    """se of 0.8 of 100 answers is 4 points, of the difference to SFT's 0.5 the root of 16 + 25."""
    found = outcomes(*seeds(50, method="sft"), *seeds(78, 80, 82))
    (table,) = [part for part in every_cell.parts(found) if isinstance(part, Table)]
    rows = {row.cells[1]: dict(zip(table.columns, row.cells, strict=True)) for row in table.rows}
    assert rows["post-block"] == {
        "task": "boolq",
        "method": "post-block",
        "parameters": "420",
        "%": "0.042",
        "rate": "0.001",
        "validation": "–",
        "mean": "80.0",
        "sd": "2.0",
        "se": "4.0",
        "n": "100",
        "seeds": "3 of 3",
        "each seed": "78.0, 80.0, 82.0",
        "to SFT": "+30.0",
        "± se": "6.4",
    }
    assert (rows["sft"]["to SFT"], rows["sft"]["± se"]) == ("0.0", "–")


def test_costs_are_medians_over_trainings() -> None:
    """A training that two runs scored counts once; memory is the largest."""
    runs = [
        made_run(split="validation", training_seconds=40.0, peak_memory=3),
        made_run(training_seconds=40.0, peak_memory=3),
        made_run(seed=1, training_seconds=10.0, peak_memory=1),
        made_run(seed=2, training_seconds=20.0, peak_memory=2),
    ]
    found = cost.Cost.of(runs)
    assert found.training is not None
    assert (found.training.per_run, found.alone, found.shared, found.training.peak_memory) == (20.0, 3, 0, 3)
    assert found.training.per_thousand_tokens == pytest.approx(1.0)
    assert found.per_answer == pytest.approx(0.1)


def test_what_a_shared_pass_cost_is_no_methods_cost() -> None:
    """Of two trainings, one alone and one of six in a pass, the first counts; a method of shared passes has no time."""
    shared = {"together": 6, "training_seconds": 5.0, "peak_memory": 9_000_000_000}
    found = outcomes(
        *seeds(50, together=1, training_seconds=60.0, peak_memory=2_000_000_000),
        made_run(seed=1, **shared),
        *seeds(50, method="lora", **shared),
    )
    table, picture = cost.parts(found)
    assert isinstance(table, Table)
    rows = {row.cells[0]: row.cells[1:] for row in table.rows}
    assert rows == {"post-block": ("3", "60", "2.00", "100", "1", "1"), "lora": ("–", "–", "–", "100", "0", "1")}
    assert "trained together in one pass are left out" in table.note
    assert "earlier version" not in table.note
    assert isinstance(picture, Picture)
    assert "lora" not in picture.alt


def test_records_that_do_not_say_whether_a_pass_was_shared_are_marked() -> None:
    """They are from before records did; they count, and the table says so."""
    table, _ = cost.parts(outcomes(*seeds(50)))
    assert isinstance(table, Table)
    assert table.rows[0].cells[2] == "60"
    assert "did not note whether a pass was shared" in table.note


def test_a_loss_curve_is_the_mean_over_the_seeds() -> None:
    """Of those that were logged at the same steps."""
    curves = [[[10, 2.0], [20, 1.0]], [[10, 4.0], [20, 2.0]], [[15, 9.0]], []]
    runs = [made_run(seed=seed, loss_curve=curve) for seed, curve in enumerate(curves)]
    assert loss_curves.mean_curve(runs) == ([10, 20], [3.0, 1.5])
    assert loss_curves.mean_curve([made_run(loss_curve=[])]) is None


def test_the_sensitivity_is_best_less_worst() -> None:
    """Of 51, 60 and 39 of 100."""
    scored = ((1e-3, 51), (2e-3, 60), (4e-3, 39))
    found = outcomes(*(made_run(rate=rate, split="validation", correct=right) for rate, right in scored))
    assert learning_rates.spread(found.cells[0]) == pytest.approx(0.21)


def test_rates_that_diverged_are_named_whether_there_is_a_line_or_not() -> None:
    """With one rate scored there is no figure, and the other one must not vanish with it."""
    found = outcomes(made_run(split="validation"))
    (cell,) = found.cells
    object.__setattr__(cell, "diverged", [0.1, 0.5])
    assert learning_rates.parts(found) == [Paragraph("Training diverged: post-block on BoolQ at 0.1, 0.5.")]
    two = outcomes(*(made_run(rate=rate, split="validation") for rate in (1e-3, 2e-3)))
    object.__setattr__(two.cells[0], "diverged", [0.1])
    first, second = learning_rates.parts(two)
    assert first == Paragraph("Training diverged: post-block on BoolQ at 0.1.")
    assert isinstance(second, Picture)


def test_every_series_of_a_figure_is_in_its_legend() -> None:
    """Each method once, whatever the number of panels; the words of the picture have every panel."""
    found = everything()
    for module in (frontier, learning_rates, loss_curves):
        (picture,) = module.parts(found)
        assert isinstance(picture, Picture)
        (legend,) = picture.drawing.legends
        assert sorted(text.get_text() for text in legend.get_texts()) == sorted(found.methods)
        assert "BoolQ" in picture.alt
        assert "listops-small" in picture.alt


def test_what_is_missing_is_said() -> None:
    """Trials, seeds, errors and divergence, each in words."""
    found = outcomes(*seeds(50), *seeds(50, method="lora"), *seeds(50, method="1-vec"))
    lacking = [
        {"learning_rate": 2e-3, "seed": 0, "split": "validation", "error": "OSError: full" + "!" * 90 + "process 1"},
        {"learning_rate": 2e-3, "seed": 1, "split": "validation", "error": "OSError: full" + "!" * 90 + "process 2"},
        {"learning_rate": None, "seed": 1, "split": "test", "error": None},
    ]
    object.__setattr__(found.cells[0], "missing", lacking)
    object.__setattr__(found.cells[1], "learning_rate", None)
    object.__setattr__(found.cells[1], "diverged", found.cells[1].learning_rates)
    object.__setattr__(found.cells[1], "missing", lacking[2:])
    (table,) = [part for part in contents.parts(found) if isinstance(part, Table)]
    assert [row.cells[2:] for row in table.rows] == [
        (
            "post-block",
            "validation at rate 0.002; seed 1 on test; 2 runs failed with OSError: full" + "!" * 67 + "…",
        ),
        ("lora", "training diverged at every rate"),
    ]
