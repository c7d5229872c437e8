"""Options that a configuration does not have, and configurations that are copies of one that was attached."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model

from tiny_models import tiny_model, token_ids
from trimtab import JointConfig, SteeringConfig

NEWER = f"{int(peft.__version__.partition('.')[0]) + 1}.0.0"


@pytest.mark.parametrize("config", [SteeringConfig, JointConfig])
def test_a_misspelt_option_in_code(config: Any) -> None:
    """A TypeError, as for every function, that says which option is meant."""
    with pytest.raises(TypeError, match=r"Unknown option of \w+Config 'postions'\. Did you mean 'positions'\?"):
        config(postions="last_prompt")


def saved(config: PeftConfig, folder: Path, edit: Callable[[dict[str, Any]], Any]) -> Path:
    """The folder of a configuration whose file was changed by hand."""
    config.save_pretrained(str(folder))
    path = folder / "adapter_config.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    return folder


def misspell(content: dict[str, Any]) -> None:
    content["postions"] = content.pop("positions")


@pytest.mark.parametrize("version", [peft.__version__, NEWER, None])
@pytest.mark.parametrize("config", [SteeringConfig, JointConfig])
@pytest.mark.parametrize("loader", [PeftConfig, SteeringConfig])
def test_a_misspelt_key_in_a_file(config: Any, loader: Any, version: str | None, tmp_path: Path) -> None:
    """An error with the nearest name, not the default, whichever PEFT has written the file."""

    def edit(content: dict[str, Any]) -> None:
        misspell(content)
        content["peft_version"] = version

    folder = saved(config(positions="last_prompt"), tmp_path, edit)
    with pytest.raises(ValueError, match=r"key of adapter_config\.json 'postions'\. Did you mean 'positions'\?"):
        loader.from_pretrained(folder)


def test_a_misspelt_key_of_the_lora_half(tmp_path: Path) -> None:
    """The half inside of a joint configuration is read as strictly."""
    folder = saved(JointConfig(), tmp_path, lambda content: content["lora"].update(lora_alhpa=2))
    with pytest.raises(ValueError, match=r"option of lora 'lora_alhpa'\. Did you mean 'lora_alpha'\?"):
        PeftConfig.from_pretrained(folder)


def test_an_adapter_with_a_misspelt_key_is_not_loaded(tmp_path: Path) -> None:
    """By PEFT or by transformers: an error, where the adapter would be steered at other positions."""
    model = get_peft_model(tiny_model(), SteeringConfig(r=2, positions="last_prompt"))
    model.save_pretrained(tmp_path)
    content = json.loads((tmp_path / "adapter_config.json").read_text())
    misspell(content)
    (tmp_path / "adapter_config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="'positions'"):
        PeftModel.from_pretrained(tiny_model(), tmp_path)
    with pytest.raises(ValueError, match="'positions'"):
        tiny_model().load_adapter(str(tmp_path))


@pytest.mark.parametrize("config", [SteeringConfig(strength=0.5), JointConfig(strength=0.5)])
def test_keys_of_a_newer_peft(config: SteeringConfig, tmp_path: Path) -> None:
    """What PEFT adds to all its configurations is dropped with its warning; of the PEFT that runs it is an error."""
    new = {"from_the_future": {"a": 1}}
    folder = saved(config, tmp_path / "newer", lambda content: content.update(new, peft_version=NEWER))
    with pytest.warns(UserWarning, match="from_the_future"):
        assert PeftConfig.from_pretrained(folder).strength == 0.5
    folder = saved(config, tmp_path / "same", lambda content: content.update(new))
    with pytest.raises(ValueError, match="from_the_future"):
        PeftConfig.from_pretrained(folder)


COPIES: dict[str, Callable[[SteeringConfig], SteeringConfig]] = {
    "replace": lambda config: dataclasses.replace(config, r=2),
    "to_dict": lambda config: type(config)(**config.to_dict()),
}


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("origin", ["attached", "loaded"])
@pytest.mark.parametrize("kind", [SteeringConfig, JointConfig])
def test_a_copy_is_for_any_base(kind: Any, origin: str, copy: str, tmp_path: Path) -> None:
    """An adapter made by a copy of a configuration is fresh, so that another family takes it."""
    config = kind(r=3)
    model = get_peft_model(tiny_model("llama"), config)
    if origin == "loaded":
        model.save_pretrained(tmp_path)
        config = PeftModel.from_pretrained(tiny_model("llama"), tmp_path).peft_config["default"]
    other = tiny_model("mistral", num_hidden_layers=2)
    adapted = get_peft_model(other, COPIES[copy](config))
    assert adapted.peft_config["default"].base == {"model_type": "mistral", "hidden_size": 24, "num_hidden_layers": 2}


@pytest.mark.parametrize("how", [*COPIES, "saved"])
def test_a_lora_adapter_loads_beside_a_copy(how: str, tmp_path: Path) -> None:
    """transformers loads another file after a fresh adapter was attached by a copy, or by a saved configuration."""
    lora = get_peft_model(tiny_model(), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    lora.save_pretrained(tmp_path / "lora")
    steered = get_peft_model(tiny_model(), SteeringConfig(r=3))
    steered.save_pretrained(tmp_path / "steered")
    config = steered.peft_config["default"]
    model = tiny_model()
    model.add_adapter(
        PeftConfig.from_pretrained(tmp_path / "steered") if how == "saved" else COPIES[how](config), "first"
    )
    model.load_adapter(str(tmp_path / "lora"), "second")
    model.set_adapter("second")
    ids = token_ids(2, 5)
    assert (model(ids).logits - lora.eval()(ids).logits).abs().max() < 1e-6
