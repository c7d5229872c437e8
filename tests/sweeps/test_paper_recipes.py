"""The recipes of the paper's tables: planned and counted without weights, and found by the report."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from paper_models import paper_model
from trimtab.methods import get_method
from trimtab.reports.paper import METHODS, TASKS
from trimtab.reports.paper import paper_model as paper_name
from trimtab.sweeps import Grid, SweepDirectory, SweepRecipe, plan
from trimtab.sweeps.costs import Costs

RECIPES = Path(__file__).parents[2] / "recipes"
MODELS = {
    "meta-llama/Llama-3.2-1B": "Llama-3.2-1B",
    "google/gemma-3-1b-pt": "gemma-3-1b",
    "Qwen/Qwen3-4B-Base": "Qwen3-4B",
    "meta-llama/Llama-3.1-8B": "Llama-3.1-8B",
}
SIZES = {
    # models x tasks x methods x (rates on validation + seeds on test)
    "table1": 4 * 6 * 5 * 10,
    "table2": 4 * 6 * 4 * 10,
    "table4": 3 * 3 * 6 * 10,
    "smol-table1": 4 * 6 * 6,
    "smol-table2": 4 * 4 * 6,
    "smol-table4": 4 * (4 * 6 + 2 * 7),  # the joint methods have a fourth rate
}


def smollm2() -> PreTrainedModel:
    """SmolLM2-135M by its published sizes, without memory."""
    sizes = {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    }
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **sizes))
    return model


def grid_of(name: str) -> Grid:
    """The grid of a shipped recipe."""
    recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    return Grid.of(SweepRecipe(**{key: value for key, value in recipe.items() if key != "out"}))


@pytest.mark.parametrize("name", SIZES)
def test_a_recipe_is_planned_and_counted_without_weights(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its runs, and what each method trains on each model, of which only the sizes are known."""

    def skeleton(model: str) -> PreTrainedModel:
        return smollm2() if model == "smollm2-135m" else paper_model(MODELS[model])

    monkeypatch.setattr(plan, "skeleton", skeleton)
    grid = grid_of(name)
    assert grid.size == SIZES[name]
    counts = plan.trainable_parameters(grid)
    assert {model for model, _ in counts} == {cell.model for cell in grid.cells}
    for (model, method), (trained, total) in counts.items():
        assert 0 < trained <= total
        if method == "sft":
            assert trained == total
        if method == "joint-orth":
            assert counts[model, "post-block-r64"][0] + counts[model, "lora"][0] == trained
            assert counts[model, "post-block-r64"][0] <= counts[model, "lora"][0]
    printed = Console(file=io.StringIO(), width=200)
    printed.print(plan.plan_table(grid, SweepDirectory(tmp_path / "out"), counts, Costs(), workers=1))
    assert f"0 of {grid.size} runs done" in printed.file.getvalue()


@pytest.mark.parametrize("name", SIZES)
def test_the_report_finds_a_row_of_the_table_for_every_method(name: str) -> None:
    """Each of the paper's methods is in the recipe; at full size so are its models and tasks."""
    grid, table = grid_of(name), int(name[-1])
    trained = [next(cell.runs()).method for cell in grid.cells]
    adapters = [(method.family, method.to_dict()["adapter"]) for method in trained]
    for candidates in METHODS[table].values():
        for ours, changes in candidates:
            wanted = get_method(ours, **changes)
            assert (wanted.family, wanted.to_dict()["adapter"]) in adapters
    if not name.startswith("smol"):
        models, tasks = {cell.model for cell in grid.cells}, {TASKS[cell.task] for cell in grid.cells}
        assert len({paper_name(model) for model in models} - {None}) == len(models) == (3 if table == 4 else 4)
        assert tasks == ({"GSM8K", "BoolQ", "WinoGrande"} if table == 4 else set(TASKS.values()))


def test_the_settings_are_those_of_the_paper() -> None:
    """Five rates, five seeds, batches of eight; one epoch, of GSM8K three (appendix F)."""
    for name in ("table1", "table2", "table4"):
        for cell in grid_of(name).cells:
            assert (len(cell.rates), cell.seeds) == (5, 5)
            settings = next(cell.runs()).training
            assert settings.batch_size == 8
            assert settings.epochs == (3 if cell.task in {"gsm8k", "arc_challenge"} else 1)
            assert settings.examples is None
