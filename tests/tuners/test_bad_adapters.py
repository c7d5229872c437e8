"""Adapters that do not fit and files that are damaged: an error that names the thing, and an untouched model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from tiny_models import assert_same, draw_adapters, fingerprint, tiny_model, token_ids
from trimtab import SteeringConfig

KEY = "base_model.model.model.layers.1.steering.steering_interventions.up"
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """The folder of a sound adapter for the tiny Llama, whose base is saved beside it."""
    tiny_model("llama").save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    config = SteeringConfig(r=3, positions="last_prompt", modules_to_save=["lm_head"], task_type="CAUSAL_LM")
    model = get_peft_model(base, config)
    draw_adapters(model)
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def edit_tensors(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    """Write the adapter's file again after a change."""

    def edit(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)

    return edit


def edit_config(**changes: Any) -> Callable[[Path], None]:
    """Write the adapter's configuration again after a change."""

    def edit(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def truncate(folder: Path) -> None:
    """Cut the file in two."""
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])


def scribble(folder: Path) -> None:
    """Overwrite the header of the file."""
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(b"\xff" * 64 + content[64:])


def pickle_it(folder: Path) -> None:
    """Write the same weights as a pickle."""
    torch.save(load_file(folder / WEIGHTS), folder / "adapter_model.bin")
    (folder / WEIGHTS).unlink()


def set_value(value: float) -> Callable[[dict[str, torch.Tensor]], None]:
    """One number of one tensor becomes `value`."""
    return lambda tensors: tensors[KEY][0].fill_(value)


def rename(tensors: dict[str, torch.Tensor]) -> None:
    """One tensor gets another name."""
    tensors[KEY.replace(".up", ".upp")] = tensors.pop(KEY)


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (truncate, rf"{WEIGHTS} is truncated or damaged"),
    "scribbled": (scribble, rf"{WEIGHTS} is truncated or damaged"),
    "empty": (lambda folder: (folder / WEIGHTS).write_bytes(b""), rf"{WEIGHTS} is truncated or damaged"),
    "pickle": (pickle_it, r"adapter_model\.bin is a pickle"),
    "missing": (edit_tensors(lambda t: t.pop(KEY)), r"lacks model\.layers\.1\.steering\.steering_interventions\.up"),
    "surplus": (
        edit_tensors(lambda t: t.update({KEY.replace("1", "7"): t[KEY].clone()})),
        r"surplus key model\.layers\.7\.steering",
    ),
    "foreign": (
        edit_tensors(lambda t: t.update({"base_model.model.model.norm.weight": torch.ones(24)})),
        r"surplus key model\.norm\.weight",
    ),
    "renamed": (edit_tensors(rename), r"lacks .*steering_interventions\.up"),
    "nan": (edit_tensors(set_value(float("nan"))), r"layers\.1\.\S+up holds a value that is not finite"),
    "infinite": (edit_tensors(set_value(float("inf"))), r"layers\.1\.\S+up holds a value that is not finite"),
    "transposed": (
        edit_tensors(lambda t: t.update({KEY: t[KEY].T.contiguous()})),
        r"layers\.1\.\S+up has shape \[3, 24\], this model needs \[24, 3\]",
    ),
    "other_rank": (edit_config(r=4), r"has shape \[3, 24\], this model needs \[4, 24\]"),
    "other_site": (edit_config(site="mlp"), r"lacks model\.layers\.0\.mlp\.steering"),
    "fewer_layers": (edit_config(layers=[0, 1]), r"surplus key model\.layers\.2"),
    "a_bias": (edit_config(use_bias=True), r"lacks .*steering_interventions\.bias"),
    "rank_zero": (edit_config(r=0), r"r=0 must be"),
    "site": (edit_config(site="blok"), r"Unknown site 'blok'\. Did you mean 'block'"),
    "layers": (edit_config(layers=[0, 9]), r"Layer 9 is not there"),
    "base_width": (edit_config(base={"hidden_size": 32}), r"another base model: its hidden_size is 32.*has 24"),
}


def from_pretrained(model: PreTrainedModel, folder: Path) -> None:
    PeftModel.from_pretrained(model, folder)


def low_cpu_mem_usage(model: PreTrainedModel, folder: Path) -> None:
    PeftModel.from_pretrained(model, folder, low_cpu_mem_usage=True)


def by_transformers(model: PreTrainedModel, folder: Path) -> None:
    model.load_adapter(str(folder))


LOADERS = [from_pretrained, low_cpu_mem_usage, by_transformers]


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_and_the_model_untouched(
    loader: Callable[[PreTrainedModel, Path], None], damage: str, adapter: Path
) -> None:
    """A clear error, and a base model without a trace of the attempt, that then takes the sound adapter."""
    break_it, message = DAMAGE[damage]
    sound = {path.name: path.read_bytes() for path in adapter.iterdir()}
    break_it(adapter)
    model = AutoModelForCausalLM.from_pretrained(adapter.parent / "base")
    before = fingerprint(model)
    with pytest.raises(ValueError, match=message):
        loader(model, adapter)
    assert_same(before, fingerprint(model))
    for name, content in sound.items():
        (adapter / name).write_bytes(content)
    (adapter / "adapter_model.bin").unlink(missing_ok=True)
    loader(model, adapter)


@pytest.mark.parametrize("damage", [name for name in DAMAGE if name != "pickle"])
@pytest.mark.parametrize("auto", [AutoPeftModelForCausalLM, AutoModelForCausalLM])
def test_models_made_from_an_adapter(auto: Any, damage: str, adapter: Path) -> None:
    """The classes that load the base themselves give the same errors."""
    break_it, message = DAMAGE[damage]
    break_it(adapter)
    # PEFT reads a truncated file before this library sees it, and safetensors' own error is clear.
    kinds: Any = (ValueError, Exception) if damage in ("truncated", "scribbled", "empty") else ValueError
    with pytest.raises(kinds, match=message if kinds is ValueError else "(?i)header|truncated|empty|damaged"):
        auto.from_pretrained(adapter)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("library", ["peft", "transformers"])
def test_beside_a_sound_adapter(library: str, damage: str, adapter: Path) -> None:
    """A second adapter that cannot be loaded leaves the first one active, trainable and steering as before."""
    break_it, message = DAMAGE[damage]
    break_it(adapter)
    base = AutoModelForCausalLM.from_pretrained(adapter.parent / "base")
    config = SteeringConfig(r=2, site="mlp", positions="last_prompt")
    if library == "peft":
        model = get_peft_model(base, config, adapter_name="first")
    else:
        base.add_adapter(config, "first")
        model = base
    draw_adapters(model)
    ids = token_ids(2, 5)
    before, logits, configs = fingerprint(model), model.eval()(input_ids=ids).logits, list(model.peft_config)
    before = fingerprint(model)
    with pytest.raises(ValueError, match=message):
        model.load_adapter(str(adapter), "second")
    assert_same(before, fingerprint(model))
    assert list(model.peft_config) == configs == ["first"]
    assert torch.equal(model(input_ids=ids).logits, logits)


BASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "wider": ("llama", {"hidden_size": 32}, r"its hidden_size is 24, this model has 32"),
    "deeper": ("llama", {"num_hidden_layers": 4}, r"its num_hidden_layers is 3, this model has 4"),
    "shallower": ("llama", {"num_hidden_layers": 2}, r"its num_hidden_layers is 3, this model has 2"),
    "mistral": ("mistral", {}, r"its model_type is 'llama', this model has 'mistral'"),
    "gpt2": ("gpt2", {}, r"its model_type is 'llama', this model has 'gpt2'"),
}


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("loader", LOADERS)
def test_another_base(base: str, loader: Callable[[PreTrainedModel, Path], None], adapter: Path) -> None:
    """An adapter for another width, depth or family is refused by what its configuration says of its base."""
    name, changes, message = BASES[base]
    model = tiny_model(name, **changes)
    before = fingerprint(model)
    with pytest.raises(ValueError, match=f"another base model: {message}"):
        loader(model, adapter)
    assert_same(before, fingerprint(model))


CANNOT_ATTACH: list[tuple[dict[str, Any], str]] = [
    ({"r": 25}, r"r=25 must lie between 1 and the width of the site, 24"),
    ({"layers": [0, 3]}, r"Layer 3 is not there: the model has 3"),
    ({"target_modules": ["q_porj"]}, r"No modules were targeted"),
    ({"target_modules": ["q_proj", "k_proj"], "r": 20}, r"r=20 must lie between 1 and the width of the site, 16"),
    ({"target_modules": ["q_proj", "act_fn"]}, r"act_fn.*does not say how wide"),
    ({"target_modules": "all-linear", "r": 20}, r"r=20 must lie"),
]


@pytest.mark.parametrize(("options", "message"), CANNOT_ATTACH)
@pytest.mark.parametrize("how", ["get_peft_model", "add_adapter", "transformers", "beside_lora"])
def test_what_cannot_be_attached(how: str, options: dict[str, Any], message: str) -> None:
    """A configuration that does not fit the model is refused, and nothing is attached in part."""
    config = SteeringConfig(**{"r": 3} | options, modules_to_save=["lm_head"])
    model: Any = tiny_model("llama")
    if how == "beside_lora":
        model.add_adapter(LoraConfig(r=2, target_modules=["gate_proj"]), "lora")
    if how == "add_adapter":
        model = get_peft_model(model, SteeringConfig(r=3, positions="last_prompt"), adapter_name="first")
    before = fingerprint(model)
    attach = {
        "get_peft_model": lambda: get_peft_model(model, config),
        "add_adapter": lambda: model.add_adapter("second", config),
    }.get(how, lambda: model.add_adapter(config, "second"))
    with pytest.raises(ValueError, match=message):
        attach()
    after = fingerprint(model)
    if how in ("transformers", "beside_lora"):
        # transformers notes that it has adapters before it tries
        before[" has"] = sorted({*before[" has"], "_hf_peft_config_loaded"} & {*before[" has"], *after[" has"]})
    assert_same(before, after)


def test_networks_without_decoder_layers_need_target_modules() -> None:
    """A site in a network that has none is an error that points to target_modules."""
    network = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU())
    with pytest.raises(ValueError, match="target_modules"):
        get_peft_model(network, SteeringConfig(r=2))
