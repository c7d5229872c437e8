"""The pages that benchmarks fill hold what is committed in benchmarks/results."""

from __future__ import annotations

import importlib
import json
import statistics
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize(
    ("page", "modules"),
    [
        ("study", {"study": "study"}),
        ("comparison", {"comparison": "comparison", "comparison_pairs": "claims"}),
        ("claims", dict.fromkeys(("claims", "gemma3_claims", "two_core_claims"), "claims")),
        ("against-lora", dict.fromkeys(("batches-of-two", "epochs", "gemma3", "inputs"), "against_lora")),
        ("gradient-clipping", {"clipping": "seed_by_seed", "fewer-examples": "seed_by_seed"}),
    ],
)
def test_tables_on_pages_are_those_of_the_committed_cells(
    page: str, modules: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/PAGE.md holds what the lines of benchmarks/results/NAME.jsonl give, and no other tables."""
    committed = {name: BENCHMARKS / "results" / f"{name}.jsonl" for name in modules}
    if not any(path.is_file() for path in committed.values()):
        pytest.skip("there are no results yet")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    parts = importlib.import_module("_measured_parts").measured_parts(BENCHMARKS.parent / "docs" / f"{page}.md")
    expected = {}
    for name, module in modules.items():
        lines = list(map(json.loads, committed[name].read_text(encoding="utf-8").splitlines()))
        tables = importlib.import_module(module).tables(lines)
        expected |= {f"{name}: {part}": text.strip() for part, text in tables.items()}
    assert parts == expected


def test_the_joint_page_has_the_medians_of_its_run() -> None:
    """Cosine, its quartiles and maximum, and the norms of W_up, from the committed numbers by the standard library."""
    measured = json.loads((BENCHMARKS / "results" / "joint_overlap.json").read_text(encoding="utf-8"))["methods"]
    page = (BENCHMARKS.parent / "docs" / "joint.md").read_text(encoding="utf-8")
    rows = {}
    for name, one in measured.items():
        cosines = [cosine for layer in one["cosine"] for cosine in layer if cosine is not None]
        low, middle, high = statistics.quantiles(cosines, n=4, method="inclusive")
        cells = [f"{middle:.3f}", f"{low:.3f} to {high:.3f}", f"{max(map(abs, cosines)):.3f}"]
        written, free = (statistics.median(one[key]) for key in ("written_norm", "free_norm"))
        rows[name] = (" | ".join(cells), f"{written:.3f}", f"{free:.3f}")
    naive, orthogonal = rows["joint"], rows["joint-orth"]
    assert f"| {naive[0]} | {naive[1]} |" in page
    assert f"| {orthogonal[0]} | {orthogonal[1]} ({orthogonal[2]} before projection) |" in page


def test_the_comparison_page_counts_the_runs_that_answer_all_alike() -> None:
    """On WinoGrande those are the runs that are right wherever some other is wrong, and wrong wherever it is right."""
    lines = (BENCHMARKS / "results" / "smol-runs.jsonl").read_text(encoding="utf-8").splitlines()
    runs = [run for run in map(json.loads, lines) if run["task"] == "winogrande"]
    counted = {}
    for split in ("test", "validation"):
        right = [run["right"] for run in runs if run["split"] == split]
        opposite = {answers.translate(str.maketrans("01", "10")) for answers in right}
        counted[split] = (sum(answers in opposite for answers in right), len(right))
    page = (BENCHMARKS.parent / "docs" / "comparison.md").read_text(encoding="utf-8")
    (alike, all_runs), (alike_first, all_first) = counted["test"], counted["validation"]
    assert f"{alike} of the {all_runs} test runs, and {alike_first} of the {all_first} on validation" in page


@pytest.mark.parametrize(
    ("margin", "error", "verdict"),
    [(0.5, 0.2, "holds"), (-0.5, 0.2, "does not hold"), (0.3, 0.2, "cannot be told"), (-0.3, 0.2, "cannot be told")],
)
def test_a_verdict_needs_twice_the_error(
    monkeypatch: pytest.MonkeyPatch, margin: float, error: float, verdict: str
) -> None:
    """On either side of nought; within 1.96 errors nothing is said."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    assert importlib.import_module("claims").verdict(margin, error) == verdict


def test_a_part_that_a_page_has_no_place_for_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named, and the page stays as it was."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    page = tmp_path / "page.md"
    page.write_text("<!-- study: What -->\n<!-- end of study: What -->\n")
    with pytest.raises(ValueError, match="no place for study: Where"):
        importlib.import_module("_measured_parts").fill(page, "study", {"What": "x", "Where": "y"})
    assert "x" not in page.read_text().split()


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("advisor", "advisor"),
        ("gradient_start", "advisor"),
        ("distillation", "distillation"),
        ("drift", "analysis"),
        ("rank", "analysis"),
    ],
)
def test_pages_quote_the_committed_tables(name: str, page: str) -> None:
    """Every row of a committed table is on its page."""
    committed = BENCHMARKS / "results" / f"{name}.md"
    if not committed.is_file():
        pytest.skip(f"benchmarks/results/{name}.md is not there: the benchmark has not been run")
    text = (BENCHMARKS.parent / "docs" / f"{page}.md").read_text(encoding="utf-8")
    rows = [line for line in committed.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    assert len(rows) > 2
    assert [row for row in rows if row not in text] == []


def test_the_claims_page_has_the_range_of_the_accuracies_on_winogrande() -> None:
    """Means over three seeds of the methods that have three, from the committed runs of both files."""
    accuracies: dict[str, list[float]] = {}
    for name in ("smol-runs", "smol-winogrande-runs"):
        for line in (BENCHMARKS / "results" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            run = json.loads(line)
            if (run["task"], run["split"]) == ("winogrande", "test"):
                accuracies.setdefault(run["method"], []).append(100 * run["accuracy"])
    means = {method: statistics.fmean(each) for method, each in accuracies.items() if len(each) == 3}
    page = (BENCHMARKS.parent / "docs" / "claims.md").read_text(encoding="utf-8")
    assert len(means) == 14
    assert f"from {min(means.values()):.1f} to {max(means.values()):.1f} %" in page
    assert f"full fine-tuning has {means['sft']:.1f}" in page
