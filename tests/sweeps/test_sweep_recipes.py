"""Every shipped recipe of a sweep: it is read, it is a grid, and it runs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from tiny_directory import save_tiny_model
from tiny_language import byte_tokenizer, tiny_model
from trimtab.cli import main
from trimtab.cli.parser import build_parser
from trimtab.cli.verbs import VERBS
from trimtab.methods import get_method
from trimtab.sweeps import ExecutorOptions, Grid, SweepRecipe, load_results, sweep
from trimtab.sweeps.configuration import canonical_json

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path for path in (ROOT / "recipes").glob("**/*.yaml") if "methods" in yaml.safe_load(path.read_text()))

SHARING = {
    **dict.fromkeys(("smol-comparison", "smol-table1", "smol-table2", "smol-table4"), "smol"),
    **dict.fromkeys(("smol-gpu-comparison", "smol-gpu-tables"), "smol-gpu"),
}
"""Recipes with one directory for several of them: a run of several is run once."""

ABOUT = {"name", "description", "learning_rates", "learning_rate"}
"""What a method says of itself, and the rate."""


def test_there_are_recipes() -> None:
    """An empty folder would pass every other test here."""
    assert "smol-listops" in {path.stem for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_a_grid(path: Path) -> None:
    """The command line reads what the file says, and every name in it exists; no model is loaded."""
    recipe = yaml.safe_load(path.read_text())
    assert recipe["out"] == f"runs/{SHARING.get(path.stem, path.stem)}"
    parsed = build_parser(VERBS).parse_args(["sweep", str(path)])["sweep"].as_dict()
    assert {key: parsed[key] for key in recipe} == recipe
    grid = Grid.of(SweepRecipe(**{key: value for key, value in recipe.items() if key != "out"}))
    assert grid.size > 0


def test_the_example_runs(tmp_path: Path) -> None:
    """Two steps of each training on a tiny model, with the recipe's methods, rates and seeds."""
    model = save_tiny_model(tmp_path / "model")
    small = "--training.max_steps 2 --training.dtype float32 --validation_examples 2 --test_examples 2"
    line = f"sweep {ROOT}/recipes/smol-listops.yaml --models [{model}] --probe false --device cpu --out {tmp_path}/out"
    assert main([*line.split(), *small.split()]) == 0
    records = load_results(tmp_path / "out")
    assert {record.method for record in records} == {"1-vec", "post-block-plus", "lora"}
    assert len([record for record in records if record.split == "test"]) == 9
    assert {record.steps for record in records} == {2}


def entries() -> list[dict[str, Any]]:
    """The method entries of all recipes, once what is the same by another name or at other rates."""
    found = {}
    for path in RECIPES:
        for entry in yaml.safe_load(path.read_text())["methods"]:
            given = dict(entry) if isinstance(entry, dict) else {"method": entry}
            kept = {key: value for key, value in given.items() if key not in ("label", "learning_rates", "training")}
            method = get_method(kept["method"], **{key: value for key, value in kept.items() if key != "method"})
            unlike = {key: value for key, value in method.to_dict().items() if key not in ABOUT}
            found[canonical_json(unlike)] = {**kept, "label": canonical_json(kept)}
    return list(found.values())


@pytest.mark.slow
def test_every_method_of_every_recipe_runs(tmp_path: Path) -> None:
    """One step of each on a tiny model, and two answers; all in one sweep, as recipes share most of their methods."""
    methods = entries()
    tiny_model(hidden_size=64, max_position_embeddings=1024).save_pretrained(tmp_path / "model")  # wide for rank 64
    byte_tokenizer().save_pretrained(tmp_path / "model")
    recipe = SweepRecipe(
        models=[str(tmp_path / "model")],
        tasks=["listops-small"],
        methods=[*methods],
        learning_rates=[1e-3],
        stage="validation",
        training={"examples": 4, "batch_size": 2, "max_steps": 1, "dtype": "float32"},
        validation_examples=2,
        keep="nothing",
        together=16,
    )
    console = Console(file=io.StringIO())
    sweep(recipe, tmp_path / "out", probe=False, console=console, options=ExecutorOptions(device="cpu"))
    assert {record.method for record in load_results(tmp_path / "out")} == {entry["label"] for entry in methods}
