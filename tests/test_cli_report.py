"""The verb `report`: one directory or several, where the files go, mistakes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from reports.made_outcomes import outcomes, seeds
from trimtab.cli.parser import UsageError, build_parser, call
from trimtab.cli.report import report
from trimtab.reports import Outcomes


def run(line: str) -> None:
    """The verb as the command line calls it."""
    parsed = build_parser({"report": report}).parse_args(["report", *shlex.split(line)])
    call(report, parsed["report"].as_dict())


def save(folder: Path, made: Outcomes) -> None:
    """The results as a file."""
    folder.mkdir()
    (folder / "results.jsonl").write_text("".join(json.dumps(each.to_dict()) + "\n" for each in made.runs.values()))


@pytest.fixture(autouse=True)
def _two_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(Path("a"), outcomes(*seeds(50, 52)))
    save(Path("b"), outcomes(*seeds(60, 62, method="sft")))


def test_a_directory_gets_its_report(capsys: pytest.CaptureFixture[str]) -> None:
    """Beside its results; the files are named."""
    run("a")
    assert {path.name for path in Path("a/report").iterdir()} >= {"report.html", "report.md"}
    assert capsys.readouterr().out.split() == ["a/report/report.html", "a/report/report.md"]


def test_several_directories_and_a_file_are_one_report() -> None:
    """The difference to SFT is there only together."""
    run("a b/results.jsonl --out both")
    assert "51.0 ± 1.4 (−10.0)" in Path("both/report.md").read_text()


@pytest.mark.parametrize("line", ["", "--out x"])
def test_what_to_report_on_must_be_given(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, and the option is named."""
    with pytest.raises(SystemExit) as stopped:
        run(line)
    assert stopped.value.code == 2
    assert "results" in capsys.readouterr().err


def test_results_that_do_not_go_together_are_a_usage_error() -> None:
    """Nothing is written."""
    save(Path("c"), outcomes(*seeds(70, run="other")))
    with pytest.raises(UsageError, match="make two reports"):
        run("a c --out out")
    assert not Path("out").exists()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        run("nowhere")
