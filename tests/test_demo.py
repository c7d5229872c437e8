"""The demo's table, figures and page, of made-up outcomes and of a whole demo, tiny."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tiny_directory import save_tiny_model
from trimtab.demo import DemoSettings, run_demo
from trimtab.demo.figures import accuracy_bars, smooth
from trimtab.demo.outcomes import Outcome
from trimtab.demo.page import figures_of, render
from trimtab.demo.table import cells, markdown_table, terminal_table
from trimtab.results import Accuracy, Environment, EvaluationResult, TrainingResult
from trimtab.training import RunDirectory

ENVIRONMENT = Environment({"torch": "2.0", "trl": None}, "3.11", "Linux", "cpu", None, "trimtab demo")
METHOD = {
    "description": "a method",
    "adapter": {"r": 8},
    "learning_rate": 2e-3,
    "schedule": "constant",
    "warmup_ratio": 0.0,
    "weight_decay": 0.0,
    "rate_factors": {"down": 2.0},
}


def outcome(name: str, correct: int, parameters: int = 0) -> Outcome:
    """An outcome with 400 answers, made up; without parameters the base."""
    records = [
        {
            "id": str(i),
            "prompt": f"[MAX {i} ]\n",
            "output": f"<answer>{i}</answer>",
            "label": "1",
            "correct": i == 1,
        }
        for i in range(3)
    ]
    settings = {"dtype": "float32", "max_new_tokens": 10}
    score = EvaluationResult(
        name,
        "listops-small",
        "test",
        Accuracy(correct, 400),
        0,
        1.0,
        1,
        "records.jsonl",
        ENVIRONMENT,
        settings,
    )
    training = TrainingResult(
        "model", "listops-small", name, 0, parameters, 60, 480, 9, 0.5, 207.4, 1_640_000_000, ENVIRONMENT
    )
    curve = [{"step": step, "loss": 2.0 / step} for step in range(1, 61)]
    if not parameters:
        return Outcome(name, score, records, 1_000_000, None, {}, [])
    return Outcome(name, score, records, 1_000_000, training, {"method": METHOD}, curve)


OUTCOMES = [outcome("base", 10), outcome("1-vec", 172, 1728), outcome("lora", 204, 24422)]


class Reader(HTMLParser):
    """Which tags a page has, with what attributes, and what it says."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page() -> str:
    """The page about the made-up outcomes."""
    return render(OUTCOMES, DemoSettings(), figures_of(OUTCOMES))


def test_a_row_has_the_share_of_the_model_and_the_error_of_the_accuracy() -> None:
    """1,728 of a million parameters; 172 of 400 is 43 % with a standard error of sqrt(0.43 * 0.57 / 400)."""
    assert cells(OUTCOMES[1]) == ("1-vec", "1,728", "0.173", "43.0 ± 2.5", "400", "207", "1.64")
    assert cells(OUTCOMES[0]) == ("base", "-", "-", "2.5 ± 0.8", "400", "-", "-")
    assert markdown_table(OUTCOMES).count("\n") == 5
    assert "| 1-vec | 1,728 |" in markdown_table(OUTCOMES)


def test_the_table_fits_a_terminal_of_80_columns() -> None:
    """No number and no name is cut."""
    screen = io.StringIO()
    Console(file=screen, width=80).print(terminal_table([*OUTCOMES, outcome("post-block", 200, 276_480)]))
    assert "…" not in screen.getvalue()
    for row in map(cells, OUTCOMES):
        assert all(cell in screen.getvalue() for cell in row)


def test_the_page_needs_no_other_file(page: str) -> None:
    """Nothing on it is fetched: no source, link, import or script; an address in a namespace is a name."""
    reader = Reader(page)
    fetching = {"src", "href", "srcset", "data", "poster", "action"}
    refers = [value for _, attributes in reader.tags for key, value in attributes.items() if key in fetching]
    assert [value for value in refers if value and not value.startswith("#")] == []
    assert {"script", "link", "iframe"}.isdisjoint(tag for tag, _ in reader.tags)
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_the_page_says_what_the_table_says(page: str) -> None:
    """Every cell, and every answer as the model wrote it, with a sign and not a colour alone."""
    reader = Reader(page)
    for row in map(cells, OUTCOMES):
        assert all(cell in reader.text for cell in row)
    assert "<answer>2</answer>" in reader.text  # escaped in the source: text, not a tag
    assert reader.text.count("✓ right") == len(OUTCOMES)
    assert "800 examples" in reader.text
    assert "torch 2.0" in reader.text


def test_the_figures_follow_the_page_into_dark_mode(page: str) -> None:
    """Inline figures have no colour of their own, each variable is defined for light, dark and paper."""
    inline = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert inline
    assert set(re.findall(r"#[0-9a-fA-F]{6}", inline)) <= {"#000000"}  # what matplotlib writes for "no fill"
    for name in set(re.findall(r"var\((--[\w-]+)\)", page)):
        assert len(re.findall(rf"{name}: #", page)) == 3


def test_ids_are_unique_on_the_page(page: str) -> None:
    """A figure that refers to another's clip path would be cut by it."""
    definitions = re.findall(r"<clipPath id=\"([^\"]+)\"", page)
    assert definitions
    assert len(definitions) == len(set(definitions))


def test_every_figure_is_described_in_words(page: str) -> None:
    """A reader who does not see it hears its numbers."""
    labels = [attributes.get("aria-label") for tag, attributes in Reader(page).tags if tag == "figure"]
    assert len(labels) == 3
    assert "43.0 ± 2.5 %" in str(labels[0])


def test_the_bars_are_as_long_as_the_accuracies() -> None:
    """Read back from the drawing: the lengths of the bars are in the ratio of the accuracies."""
    svg = accuracy_bars(OUTCOMES).file
    bars = [re.findall(r"[ML] ([\d.]+) ", path) for path in re.findall(r'<g id="patch_\d+">\s*<path d="([^"]+)"', svg)]
    lengths = sorted(max(map(float, xs)) - min(map(float, xs)) for xs in bars if len(xs) == 4)
    ratios = [2.5 / 51, 43 / 51]
    assert any(
        np.allclose([a / c, b / c], ratios, rtol=1e-3)
        for i, a in enumerate(lengths)
        for j, b in enumerate(lengths[i + 1 :], i + 1)
        for c in lengths[j + 1 :]
    )


def test_curves_are_moving_means() -> None:
    """Against the definition, at the step that ends each window."""
    values = [float(i * i % 17) for i in range(100)]
    steps, means = smooth(range(1, 101), values)
    assert steps[0] == 20
    assert steps[-1] == 100
    assert means[5] == pytest.approx(sum(values[5:25]) / 20)
    assert len(smooth([1, 2], [3.0, 5.0])[1]) == 2


@pytest.mark.slow
def test_the_demo_runs_from_nothing_to_the_page_and_only_once(tmp_path: Path) -> None:
    """Adapter, answers, table, figures and page are there; a second start trains nothing."""
    model = save_tiny_model(tmp_path / "model")
    settings = DemoSettings(
        model=str(model),
        methods={"1-vec": {"learning_rate": 1e-2}},
        train_examples=6,
        batch_size=2,
        test_examples=4,
        shown_examples=2,
        dtype="float32",
        device="cpu",
    )
    out, screen = tmp_path / "demo", io.StringIO()
    outcomes = run_demo(settings, out, console=Console(file=screen, width=160))
    assert [row.name for row in outcomes] == ["base", "1-vec"]
    assert outcomes[1].parameters == 3 * 32  # a vector of the hidden size after each of three layers
    assert [record["id"] for record in outcomes[0].records] == [record["id"] for record in outcomes[1].records]
    assert "± " in screen.getvalue()
    assert RunDirectory(out / "1-vec").finished
    for name in (
        "index.html",
        "table.md",
        "figures/accuracy.svg",
        "figures/loss.svg",
        "figures/parameters.svg",
    ):
        assert (out / name).stat().st_size > 0
    assert "96" in Reader((out / "index.html").read_text()).text

    written = (out / "1-vec" / "weights" / "adapter_model.safetensors").stat().st_mtime_ns
    again = run_demo(settings, out, console=Console(file=screen, width=160))
    assert again == outcomes
    assert (out / "1-vec" / "weights" / "adapter_model.safetensors").stat().st_mtime_ns == written
    with pytest.raises(FileExistsError, match="test_examples"):
        run_demo(replace(settings, test_examples=5), out)
