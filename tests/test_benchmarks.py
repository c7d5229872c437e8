"""The benchmarks on a tiny model: all contestants do the same work, every script runs and says what it measured."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from benchmark_scripts import BENCHMARKS, benchmark
from tiny_directory import save_tiny_model
from trimtab.models import load_model

LAYERS, WIDTH, INNER, KEYS, RANK = 3, 32, 48, 16, 4  # of the tiny model, and of its adapters here
PARAMETERS = {
    "floor": WIDTH,
    "post-block r=8": LAYERS * 2 * WIDTH * RANK,
    "post-block r=8, h / rms(h), bias": LAYERS * (2 * WIDTH * RANK + WIDTH),
    "1-vec": LAYERS * WIDTH,
    "post-block r=8, nn.Linear and autograd": LAYERS * 2 * WIDTH * RANK,
    # q, o (d, d); k, v (d, keys); gate, up, down (d, inner)
    "PEFT LoRA r=8": LAYERS * RANK * (2 * 2 * WIDTH + 2 * (WIDTH + KEYS) + 3 * (WIDTH + INNER)),
    "post-block r=8 in trimtab's trainer": LAYERS * 2 * WIDTH * RANK,
}


def _contestants() -> list[str]:
    module = benchmark("_contestants")
    return [*module.IN_THE_LOOP, *module.IN_A_TRAINER]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The directory of a tiny model."""
    return str(save_tiny_model(tmp_path_factory.mktemp("model")))


@pytest.fixture
def measure(tiny: str) -> Callable[..., Any]:
    """Measure a contestant on the tiny model, in this process."""

    def measured(contestant: str, **changes: Any) -> Any:
        settings = {"dtype": "float32", "rows": 1, "tokens": 24, "supervised": 5, "rank": RANK, "steps": 2}
        job = benchmark("_measure").Job(contestant, tiny, threads=torch.get_num_threads(), **{**settings, **changes})
        return benchmark("_worker").measure(job)

    return measured


@pytest.fixture
def run(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run a script's `main`, measuring in this process; gives its JSON and its section of the page."""

    def ran(name: str, *options: str) -> dict[str, Any]:
        script = benchmark(name)
        common = ["--model", tiny, "--dtype", "float32", "--results", str(tmp_path), "--docs", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", [f"benchmarks/{name}.py", *common, *options])
        monkeypatch.setattr(script, "PYREFT_PYTHON", tmp_path / "absent", raising=False)
        monkeypatch.setattr(script, "run_fresh", benchmark("_worker").measure, raising=False)
        monkeypatch.setattr(script, "run_paired", benchmark("_paired_worker").measure, raising=False)
        script.main()
        text = (tmp_path / f"{name}.md").read_text(encoding="utf-8")
        assert text in (tmp_path / "benchmarks.md").read_text(encoding="utf-8")
        return {**json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8")), "text": text}

    return ran


def _rows(text: str) -> list[list[str]]:
    """The cells of all tables in a text, heads and rules left out."""
    lines = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[0] not in ("", "contestant", "target", "model")]


@pytest.mark.parametrize("contestant", _contestants())
@pytest.mark.parametrize("supervised", [5, 24])
def test_every_contestant_starts_from_the_loss_of_the_base(
    contestant: str, supervised: int, tiny: str, measure: Callable[..., Any]
) -> None:
    """All train on the same loss: before the first update it is the one that transformers computes itself."""
    measured = measure(contestant, supervised=supervised)
    base, _ = load_model(tiny, dtype="float32", device="cpu")
    job = benchmark("_measure").Job(contestant, tiny, rows=1, tokens=24, supervised=supervised)
    ids, labels = benchmark("_measure").random_batch(base.config.vocab_size, job)
    assert (labels != -100).sum() == supervised
    assert measured.first_loss == pytest.approx(base(input_ids=ids, labels=labels).loss.item(), rel=1e-5)
    assert len(measured.seconds) == 2
    assert measured.trainable == PARAMETERS.get(contestant, measured.trainable)


def test_full_fine_tuning_trains_every_parameter(tiny: str, measure: Callable[..., Any]) -> None:
    """Nothing is left out."""
    base, _ = load_model(tiny, dtype="float32", device="cpu")
    assert measure("full fine-tuning").trainable == base.num_parameters()


@pytest.mark.parametrize("contestant", ["post-block r=8", "PEFT LoRA r=8"])
def test_the_last_layers_are_adapted(contestant: str, measure: Callable[..., Any]) -> None:
    """A job for two of three layers trains two thirds of the parameters, in the last two layers."""
    assert benchmark("_measure").Job(contestant, "", layers=2).adapted(LAYERS) == [1, 2]
    assert measure(contestant, layers=2).trainable * LAYERS == PARAMETERS[contestant] * 2


def test_the_floor_pays_for_every_layer(tiny: str) -> None:
    """The gradient of the floor's vector comes from behind all layers, and no weight has one."""
    model, _ = load_model(tiny, dtype="float32", device="cpu")
    contestants, job = (
        benchmark("_contestants"),
        benchmark("_measure").Job("floor", tiny, rows=1, tokens=8),
    )
    floor = contestants.IN_THE_LOOP["floor"].attach(model, job)
    contestants.labelled_loss(floor)(*benchmark("_measure").random_batch(model.config.vocab_size, job)).backward()
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert with_gradient == {"floor.vector"}
    assert model.floor.vector.grad.abs().min() > 0


def test_a_fresh_process_measures_the_same(tiny: str, measure: Callable[..., Any]) -> None:
    """The worker, started as a process, trains what it trains here."""
    job = benchmark("_measure").Job("1-vec", tiny, "float32", rows=1, tokens=24, supervised=5, rank=RANK, steps=2)
    fresh, here = benchmark("_harness").run_fresh(job), measure("1-vec")
    assert (fresh.first_loss, fresh.trainable, len(fresh.seconds)) == (here.first_loss, here.trainable, 2)
    assert fresh.peak_mib > 0


def test_step(run: Callable[..., Any]) -> None:
    """Contestants are in the tables where they belong; the ratios are those of the JSON's numbers."""
    script = benchmark("step")
    assert set(_contestants()) | {script.PYREFT} == set(script.CONTESTANTS)
    compared = dict.fromkeys(name for _, *names, _ in script.TARGETS for name in names)
    record = run(
        "step", "--rows", "2", "--tokens", "24", "--steps", "1", "--paired", "3", "--contestants", *compared, "1-vec"
    )
    few, everything = (record["results"][f"{count} supervised"]["fresh"] for count in (6, 24))
    assert list(few) == [*compared, "1-vec"]
    assert list(everything) == list(compared)
    rows = {row[0]: row for row in _rows(record["text"].partition("### All")[0])}
    for name, one in few.items():
        seconds = statistics.median(second for each in one["runs"] for second in each["seconds"])
        assert one["seconds"] == pytest.approx(seconds)
        assert rows[name][4] == f"{seconds / few['floor']['seconds']:.2f}"
        assert rows[name][7] == f"{one['peak_mib'] / few['PEFT LoRA r=8']['peak_mib']:.2f}"
    paired = record["results"]["6 supervised"]["paired"]
    ratios = [a / b for a, b in zip(paired["full fine-tuning"], paired["post-block r=8"], strict=True)]
    _, measured, quartiles, _ = rows["step: full fine-tuning / post-block ≥ 2.20"]
    assert measured == f"{sorted(ratios)[1]:.3f}"
    assert float(quartiles.split(" to ")[0]) <= float(measured) + 0.01
    memory = few["post-block r=8"]["peak_mib"] / few["PEFT LoRA r=8"]["peak_mib"]
    assert rows["memory above the model: post-block / LoRA ≤ 0.60"][1] == f"{memory:.3f}"
    assert sum(" / " in name and ("≤" in name or "≥" in name) for name in rows) == 5
    assert "pyreft was not measured" in record["text"]


def test_growth(run: Callable[..., Any], tmp_path: Path) -> None:
    """Every sweep varies one thing; the figure has a panel for each, twice."""
    record = run(
        "growth",
        *("--rows", "2", "--tokens", "16", "--steps", "1", "--ranks", "4", "8", "--layers", "1", "3"),
        *("--lengths", "8", "16", "--batches", "1", "2"),
    )
    points = {(p["contestant"], p["rank"], p["layers"], p["tokens"], p["rows"]) for p in record["results"]}
    centre = (8, 3, 16, 2)
    varied = [centre, (4, 3, 16, 2), (8, 1, 16, 2), (8, 3, 8, 2), (8, 3, 16, 1)]
    assert points == {(name, *point) for name in ("post-block r=8", "PEFT LoRA r=8") for point in varied}
    assert len(record["results"]) == len(points)
    assert len(_rows(record["text"])) == 8
    svg = ElementTree.parse(tmp_path / "assets" / "growth.svg")  # noqa: S314  # our own file
    text = {element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")}
    assert {"post-block", "LoRA", "rank", "adapted layers", "seconds a step", "memory, MiB"} <= text


def test_generation(run: Callable[..., Any]) -> None:
    """Base and adapters generate one by one and together; both ways of evaluation are timed."""
    record = run(
        "generation",
        *("--rounds", "2", "--rows", "1", "2", "--prompt", "5", "--new", "3", "--examples", "2"),
        *("--evaluations", "1"),
    )
    seconds = record["results"]["seconds a token"]
    rows = {(row[0], row[1]): row for row in _rows(record["text"]) if " / " not in row[0] or row[1].isdigit()}
    assert len(seconds) == len(rows) == 10
    name = "post-block r=8, 2 at a time"
    assert float(rows["post-block r=8", "2"][2]) == pytest.approx(1000 * statistics.median(seconds[name]), abs=0.06)
    ratios = record["results"]["ratio to the base"]
    assert rows["post-block r=8", "2"][3] == f"{statistics.median(ratios[name]):.3f}"
    assert ratios["base, 2 at a time"] == [1.0, 1.0]
    assert {len(each) for each in record["results"]["seconds in a steering layer"].values()} == {2}
    assert {how: len(rounds) for how, rounds in record["results"]["examples a second"].items()} == {
        "one by one": 1,
        "in batches": 1,
    }


def test_shared_prefixes(run: Callable[..., Any]) -> None:
    """Both ways are timed on the same batches, and the table has the median of their ratios."""
    record = run("prefix", "--rounds", "3", "--rows", "2", "--examples", "3")
    seconds = record["results"]["seconds"]
    rows = {row[0]: row for row in _rows(record["text"])}
    assert len(seconds) == 3
    for what, found in seconds.items():
        ratios = [whole / shared for whole, shared in zip(found["whole"], found["shared"], strict=True)]
        assert rows[what][3] == f"{statistics.median(ratios):.2f}"


def test_the_page_is_of_the_committed_results() -> None:
    """docs/benchmarks.md is what the results give."""
    report, results = benchmark("report"), BENCHMARKS / "results"
    if not any((results / f"{name}.md").exists() for name in report.NAMES):
        pytest.skip("there are no results yet")
    page = BENCHMARKS.parent / "docs" / "benchmarks.md"
    assert page.read_text(encoding="utf-8") == report.page(results)
