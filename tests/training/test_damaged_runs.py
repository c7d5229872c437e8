"""Runs of LoRA and of full fine-tuning whose files are damaged, or whose base was changed: an error, no default."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, MistralConfig

from tiny_language import LastLetter, byte_tokenizer, tiny_model
from tiny_models import assert_same, fingerprint
from trimtab.methods import get_method
from trimtab.models import load_model
from trimtab.training import RunDirectory, TrainingSettings, load_run, train
from trimtab.tuners.saved import load_adapter

METHODS = ["lora", "dora", "sft"]


def trained(folder: Path, method: str) -> RunDirectory:
    """A finished run whose base is saved beside it."""
    tiny_model().save_pretrained(folder / "base")
    byte_tokenizer().save_pretrained(folder / "base")
    settings = TrainingSettings(max_steps=1, dtype="float32")
    chosen = get_method(method) if method == "sft" else get_method(method, r=2)
    return train(folder / "base", chosen, LastLetter(), folder / "run", settings=settings, progress=False)


def edit(run: RunDirectory, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Write the weights again after a change."""
    (file,) = run.weights.glob("*.safetensors")
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, {"format": "pt"})


def some(tensors: dict[str, Tensor]) -> str:
    """The name of a tensor of the second layer."""
    return min(name for name in tensors if "layers.1.mlp.up_proj" in name)


DAMAGE: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "missing": (lambda t: t.pop(some(t)), r"lacks model\.layers\.1\.mlp\.up_proj"),
    "surplus": (
        lambda t: t.update({some(t).replace("layers.1", "layers.7"): t[some(t)].clone()}),
        r"surplus key model\.layers\.7\.mlp\.up_proj",
    ),
    "renamed": (lambda t: t.update({some(t).replace("up_proj", "upp"): t.pop(some(t))}), r"lacks model\.layers\.1"),
    "nan": (lambda t: t[some(t)][0].fill_(torch.nan), r"layers\.1\.mlp\.up_proj\S+ holds a value that is not finite"),
    "shape": (lambda t: t.update({some(t): t[some(t)][:-1].clone()}), r"layers\.1\.mlp\.up_proj\S+"),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_weights_are_named(damage: str, method: str, tmp_path: Path) -> None:
    """A tensor that is missing, too much, of another shape or not finite; the sound run loads."""
    run = trained(tmp_path, method)
    load_run(run.path, dtype="float32")
    change, message = DAMAGE[damage]
    edit(run, change)
    with pytest.raises(ValueError, match=message):
        load_run(run.path, dtype="float32")


@pytest.mark.parametrize("method", METHODS)
def test_cut_off_weights_are_named(method: str, tmp_path: Path) -> None:
    """The error is not safetensors' own, which names no file."""
    run = trained(tmp_path, method)
    (file,) = run.weights.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ValueError, match=rf"{file.name} is truncated or damaged"):
        load_run(run.path, dtype="float32")


def other_base(folder: Path, kind: str) -> None:
    """Write another model in the place of the base."""
    if kind == "mistral":  # the same names and shapes of every weight
        config = {**tiny_model().config.to_dict(), "sliding_window": None}
        for key in ("model_type", "architectures"):
            config.pop(key)
        AutoModelForCausalLM.from_config(MistralConfig(**config)).save_pretrained(folder)
    else:
        tiny_model(num_hidden_layers={"deeper": 4, "shallower": 2}[kind]).save_pretrained(folder)


@pytest.mark.parametrize("method", ["lora", "dora", "post-block", "joint"])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("mistral", "its model_type is 'llama', this model has 'mistral'"),
        ("deeper", "its num_hidden_layers is 3, this model has 4"),
        ("shallower", "its num_hidden_layers is 3, this model has 2"),
    ],
)
def test_another_base_is_refused(kind: str, message: str, method: str, tmp_path: Path) -> None:
    """Whatever the method: the run says what its base was."""
    run = trained(tmp_path, method)
    other_base(tmp_path / "base", kind)
    with pytest.raises(ValueError, match=f"made for another base model: {message}"):
        load_run(run.path, dtype="float32")


def test_runs_from_before_the_base_was_recorded(tmp_path: Path) -> None:
    """They load as ever, and the keys still tell a base with another number of layers."""
    run = trained(tmp_path, "lora")
    (run.weights / "base.json").unlink()
    load_run(run.path, dtype="float32")
    for kind, message in (("deeper", r"lacks model\.layers\.3\."), ("shallower", r"surplus key model\.layers\.2\.")):
        other_base(tmp_path / "base", kind)
        with pytest.raises(ValueError, match=message):
            load_run(run.path, dtype="float32")


def test_a_refused_adapter_leaves_the_base_as_it_was(tmp_path: Path) -> None:
    """The next one goes onto the same base."""
    run = trained(tmp_path, "lora")
    base, _ = load_model(tmp_path / "base", dtype="float32")
    before = fingerprint(base)
    sound = next(run.weights.glob("*.safetensors")).read_bytes()
    for damage in ("missing", "shape", "nan"):
        edit(run, DAMAGE[damage][0])
        with pytest.raises(ValueError, match=DAMAGE[damage][1]):
            load_adapter(base, run.weights)
        assert_same(before, fingerprint(base))
        (run.weights / "adapter_model.safetensors").write_bytes(sound)
    load_adapter(base, run.weights)


def test_another_configuration_of_a_full_run(tmp_path: Path) -> None:
    """Its weights are compared with what the configuration beside them asks for."""
    run = trained(tmp_path, "sft")
    path = run.weights / "config.json"
    config = json.loads(path.read_text())
    for layers, message in ((4, r"lacks model\.layers\.3\."), (2, r"surplus key model\.layers\.2\.")):
        path.write_text(json.dumps({**config, "num_hidden_layers": layers, "layer_types": None}))
        with pytest.raises(ValueError, match=message):
            load_run(run.path, dtype="float32")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model: base\ntask: {name: [", "cut off or damaged"),
        ("", "it holds no settings"),
        ("model: base\ntask:\n", r"lacks method\.family"),
        ("method: {family: lora}\n", "lacks model"),
    ],
)
def test_a_cut_off_recipe_is_named(content: str, message: str, tmp_path: Path) -> None:
    """YAML that ends early, or is whole and lacks a setting."""
    run = trained(tmp_path, "lora")
    run.recipe_file.write_text(content)
    with pytest.raises(ValueError, match=rf"recipe\.yaml is cut off or damaged: .*{message}|{message}"):
        load_run(run.path)
