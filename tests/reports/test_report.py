"""The report as files: of a real small sweep, whole and unfinished, and of made-up results."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import markdown
import pytest
from rich.console import Console

from made_runs import LLAMA
from reports.made_outcomes import everything
from sweeps.small_sweep import small_recipe
from trimtab.reports import Outcomes, write_report
from trimtab.reports.document import Table
from trimtab.reports.sections import sections
from trimtab.sweeps import Grid, SweepDirectory, load_cells, sweep
from trimtab.sweeps.cells import write_cells


class Reader(HTMLParser):
    """Which tags a page has, with what attributes, its cells, and what it says."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.text = ""
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "td":
            self.cells.append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag != "td"

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.inside:
            self.cells[-1] += data.replace("\N{NO-BREAK SPACE}", " ")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sweep of a tiny model, really run: two methods, two rates, two seeds."""
    folder = tmp_path_factory.mktemp("report")
    sweep(small_recipe(folder), folder / "out", probe=False, console=Console(file=io.StringIO()))
    return folder


@pytest.fixture(scope="module", params=[LLAMA, "smollm2-135m"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcomes, Path]:
    """Made-up results of every method, of a model of the paper and of another, and their report."""
    outcomes = everything(request.param)
    return outcomes, write_report(outcomes, tmp_path_factory.mktemp("made"))


def table_cells(outcomes: Outcomes) -> list[str]:
    """All cells of all tables, in order."""
    parts = [part for section in sections(outcomes) for part in section.parts]
    return [cell for part in parts if isinstance(part, Table) for row in part.rows for cell in row.cells]


def test_the_page_needs_no_other_file(made: tuple[Outcomes, Path]) -> None:
    """Nothing on it is fetched or run: no source, script, import or address but those of its own sections."""
    text = made[1].read_text()
    reader = Reader(text)
    fetching = {"src", "href", "srcset", "data", "poster", "action", "xlink:href"}
    refers = [value for _, attributes in reader.tags for key, value in attributes.items() if key in fetching]
    assert [value for value in refers if value and not value.startswith("#")] == []
    assert {"script", "link", "iframe", "img"}.isdisjoint(tag for tag, _ in reader.tags)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)


def test_page_and_markdown_have_every_cell_of_every_table(made: tuple[Outcomes, Path]) -> None:
    """In the same order, as a parser of Markdown and one of HTML read them."""
    outcomes, page = made
    wanted = table_cells(outcomes)
    assert Reader(page.read_text()).cells == wanted
    rendered = markdown.markdown(page.with_suffix(".md").read_text(), extensions=["tables"])
    assert Reader(rendered).cells == wanted


def test_the_figures_are_in_the_page_and_beside_the_markdown(made: tuple[Outcomes, Path]) -> None:
    """Each of them once; inline they have the page's colours, as files their own; ids are unique on the page."""
    page = made[1].read_text()
    named = re.findall(r"!\[.*\]\((figures/.*\.svg)\)", made[1].with_suffix(".md").read_text())
    assert len(named) == len(set(named)) == page.count("<svg ") == 4
    assert all((made[1].parent / name).read_text().startswith("<?xml") for name in named)
    inline = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert set(re.findall(r"#[0-9a-fA-F]{6}", inline)) <= {"#000000", "#ffffff"}
    for variable in set(re.findall(r"var\((--[\w-]+)\)", page)):
        assert len(re.findall(rf"{variable}: #", page)) == 3  # in the light, in the dark, on paper
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_the_papers_accuracies_are_there_for_its_own_models_only(made: tuple[Outcomes, Path]) -> None:
    """86.2 % of Llama-3.2-1B on BoolQ stands beside our number for it, and nowhere for SmolLM2."""
    outcomes, page = made
    reader = Reader(page.read_text())
    assert ("86.2 (−2.0)" in reader.cells) is (outcomes.models == [LLAMA])
    assert "arXiv 2603.00425" in reader.text


def test_the_report_of_a_real_sweep(finished: Path, tmp_path: Path) -> None:
    """The means are those of cells.jsonl; nothing is missing; no path of the disk is in it."""
    outcomes = Outcomes.read([finished / "out"])
    page = write_report(outcomes, tmp_path / "report")
    reader = Reader(page.read_text())
    for cell in load_cells(finished / "out"):
        assert f"{100 * (cell.accuracy or 0):.1f}" in reader.cells
        assert f"{cell.learning_rate:g}" in reader.cells
    assert "Nothing is missing" in reader.text
    assert str(finished) not in page.read_text()
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"report.md", "report.html", "figures"}


def test_the_same_results_give_the_same_files(finished: Path, tmp_path: Path) -> None:
    """Byte for byte, with the figures: a report can be kept in a repository."""
    pages = [write_report(Outcomes.read([finished / "out"]), tmp_path / name) for name in "ab"]
    for path in sorted(pages[0].parent.rglob("*.*")):
        assert path.read_bytes() == (pages[1].parent / path.relative_to(pages[0].parent)).read_bytes()


def test_an_unfinished_sweep_says_what_is_missing(finished: Path, tmp_path: Path) -> None:
    """The recipe has grown by a seed and a method that have not been run."""
    recipe = small_recipe(finished, seeds=[0, 1, 2], methods=["post-block", "1-vec"])
    directory = SweepDirectory(tmp_path / "out")
    directory.open(recipe.to_dict())
    (directory.path / "results.jsonl").write_bytes((finished / "out" / "results.jsonl").read_bytes())
    for path in (finished / "out" / "runs").glob("*/*-*.json"):
        (directory.runs / path.parent.name).mkdir(exist_ok=True)
        (directory.runs / path.parent.name / path.name).write_bytes(path.read_bytes())
    write_cells(Grid.of(recipe), directory)
    reader = Reader(write_report(Outcomes.read([directory.path]), tmp_path / "report").read_text())
    assert "seed 2 on test" in reader.cells
    assert "validation at rate 0.05, 0.002; seed 0, 1, 2 on test" in reader.cells
    assert "2 of 3" in reader.cells


def test_a_sweep_that_has_just_begun_has_a_report(finished: Path, tmp_path: Path) -> None:
    """Cells and not one result: no figure, and a list of what is missing."""
    recipe = small_recipe(finished)
    directory = SweepDirectory(tmp_path / "out")
    directory.open(recipe.to_dict())
    write_cells(Grid.of(recipe), directory)
    page = write_report(Outcomes.read([directory.path]), tmp_path / "report").read_text()
    assert "0 runs finished, 8 missing" in page
    assert "<svg" not in page
