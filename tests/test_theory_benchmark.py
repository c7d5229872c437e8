"""benchmarks/theory_numbers.py: its numbers obey the theory, and docs/theory.md quotes them."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tiny_directory import save_tiny_model
from tiny_language import byte_tokenizer
from tiny_models import tiny_model

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
RESULTS = BENCHMARKS / "results"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the script finds on tiny models, and the tables that it writes."""
    folder = tmp_path_factory.mktemp("theory")
    gemma = tiny_model("gemma3_text", vocab_size=258, max_position_embeddings=512, sliding_window=64)
    gemma.save_pretrained(folder / "gemma")
    byte_tokenizer().save_pretrained(folder / "gemma")
    llama = str(save_tiny_model(folder / "llama"))
    options = ["--model", llama, "--layers", "0", "2", "--gemma", str(folder / "gemma"), "--gemma_layers", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        command = ["theory_numbers.py", *options, "--tokens", "300", "--draws", "1", "--results", str(folder)]
        patch.setattr(sys, "argv", command)
        importlib.import_module("theory_numbers").main()
    text = (folder / "theory.md").read_text(encoding="utf-8")
    record = json.loads((folder / "theory.json").read_text(encoding="utf-8"))
    return {**record["results"], "linear_reach": record["linear_reach"], "text": text, "folder": folder}


def test_layers(found: dict[str, Any]) -> None:
    """Slopes of 2; a longer dh misses less; the two sides of theorem 3.1 agree and lie within the angles' bounds."""
    layers = [numbers for by_layer in found["layers"].values() for numbers in by_layer.values()]
    assert len(layers) == 3
    for numbers in layers:
        assert list(numbers["slopes"].values()) == pytest.approx([2, 2, 2], abs=0.1)
        missed = [pair[0] for pair in numbers["reach"]["missed"].values()]
        assert 1 > missed[0] > missed[1] > missed[2] >= 0
        error, (low, high) = numbers["post_block"]["error"], numbers["post_block"]["angle_bounds"]
        assert numbers["post_block"]["error_by_angles"] == pytest.approx(error, rel=1e-8)
        assert low <= error <= high
        assert numbers["post_block"]["samples"] == 299


def test_linear_reach(found: dict[str, Any]) -> None:
    """Every layer has its numbers, for every limit, and says on how many tokens."""
    layers = [numbers for by_layer in found["linear_reach"]["results"].values() for numbers in by_layer.values()]
    assert len(layers) == 3
    for numbers in layers:
        assert list(numbers["in_front"]) == ["0.003", "0.01", "0.03", "0.1"]
        assert numbers["samples"] == [267, 32]
        assert len(numbers["behind"]) == 2


def test_bounds_are_bounds(found: dict[str, Any]) -> None:
    """No ratio of bound to actual is below 1, on random weights and in the layers."""
    assert set(found["bounds"]["RMS norm"]) == {"d = 8", "d = 64", "d = 256"}
    assert set(found["bounds"]["SmolLM2-135M, attention"]) == {"layer 0", "layer 2"}
    ratios = [each for row in found["bounds"].values() for cases in row.values() for each in cases.values()]
    assert len(ratios) == 3 * (1 + 3 + 3) + 2 * (3 + 3)
    assert min(ratios) >= 1


def test_the_tables_have_a_row_for_each_layer(found: dict[str, Any]) -> None:
    """Three layers in four tables, three random kinds and two of the model in the fifth."""
    rows = [line for line in found["text"].splitlines() if line.startswith("| ")]
    assert len(rows) == 4 * (2 + 3) + 2 + 5


def test_one_part_alone_leaves_the_others_as_they_are(found: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured anew on another number of tokens, with an environment of its own; all other numbers stay."""
    folder = found["folder"]
    before = json.loads((folder / "theory.json").read_text(encoding="utf-8"))
    options = ["--model", str(folder / "llama"), "--layers", "1", "--tokens", "290", "--part", "linear_reach"]
    monkeypatch.setattr(sys, "argv", ["theory_numbers.py", *options, "--results", str(folder)])
    importlib.import_module("theory_numbers").main()
    after = json.loads((folder / "theory.json").read_text(encoding="utf-8"))
    assert {**after, "linear_reach": None} == {**before, "linear_reach": None}
    assert after["linear_reach"]["settings"]["tokens"] == 290
    assert "--part linear_reach" in after["linear_reach"]["environment"]["command"]
    assert {label: list(layers) for label, layers in after["linear_reach"]["results"].items()} == {
        "SmolLM2-135M": ["1"]
    }


def test_a_part_of_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without recorded numbers there is nothing to add the part to: said before a model is loaded."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    command = ["theory_numbers.py", "--model", "none", "--part", "linear_reach", "--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit):
        importlib.import_module("theory_numbers").main()
    assert "leave --part out" in capsys.readouterr().err


def test_the_page_quotes_the_committed_tables() -> None:
    """Every row of benchmarks/results/theory.md is on the page."""
    page = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")
    rows = [line for line in (RESULTS / "theory.md").read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    assert len(rows) > 20
    assert [row for row in rows if row not in page] == []


def test_what_is_missed_in_real_layers_is_of_second_order() -> None:
    """In the committed run every slope is 2.0 +- 0.1, in layers of SmolLM2 and of Gemma 3 with their own weights."""
    layers = json.loads((RESULTS / "theory.json").read_text(encoding="utf-8"))["results"]["layers"]
    assert set(layers) == {"SmolLM2-135M", "gemma-3-270m"}
    slopes = [slope for model in layers.values() for layer in model.values() for slope in layer["slopes"].values()]
    assert len(slopes) == 2 * 3 * 3
    assert slopes == [pytest.approx(2, abs=0.1)] * len(slopes)


def test_a_linear_map_in_front_of_real_mlps_misses_what_one_behind_reaches() -> None:
    """In the committed run, with a proof up to a dh of 1 %, and on unseen tokens as well."""
    by_model = json.loads((RESULTS / "theory.json").read_text(encoding="utf-8"))["linear_reach"]["results"]
    assert {name: list(layers) for name, layers in by_model.items()} == {
        "SmolLM2-135M": ["2", "15", "27"],
        "gemma-3-270m": ["2", "9", "15"],
    }
    for layer in (layer for layers in by_model.values() for layer in layers.values()):
        behind, behind_unseen = layer["behind"]
        for share, found in layer["in_front"].items():
            formula, module, unseen = found["missed"]
            assert module == pytest.approx(formula, abs=0.02)
            assert formula > 0.36 > 0.16 > behind
            assert unseen > 0.78 > 0.72 > behind_unseen
            assert float(share) > 0.01 or formula - found["at_least"] < 0.01
        assert layer["in_front"]["0.01"]["at_least"] > 0.42
        assert 0.01 < layer["in_front"]["0.1"]["length"] < 0.021
