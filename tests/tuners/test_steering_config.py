"""SteeringConfig: its defaults are the paper's, its mistakes are errors, and it survives every way of copying."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from peft import PeftConfig, PeftType, TaskType

from trimtab import SteeringConfig

CHOSEN: dict[str, Any] = {
    "r": 3,
    "site": "mlp",
    "activation": "silu",
    "use_bias": True,
    "normalize": True,
    "layers": [0, 2],
    "positions": "first_last(7,7)",
    "strength": 0.5,
    "init_weights": False,
    "init_scale": 1e-3,
    "modules_to_save": ["lm_head"],
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "some/model",
    "inference_mode": True,
}


def test_the_default_is_the_papers_method() -> None:
    """Post-block, linear, rank 8, every layer, every token, at full strength, starting as a no-op."""
    config = SteeringConfig()
    assert (config.site, config.intervention, config.r, config.activation) == ("block", "low_rank", 8, None)
    assert (config.layers, config.positions, config.strength) == (None, "all", 1.0)
    assert (config.use_bias, config.normalize, config.init_weights) == (False, False, True)
    assert config.peft_type is PeftType("STEERING")
    assert not config.is_prompt_learning


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"site": "blok"}, r"Unknown site 'blok'\. Did you mean 'block'\?"),
        ({"intervention": "low-rank"}, r"Unknown intervention 'low-rank'\. Did you mean 'low_rank'\?"),
        ({"activation": "sillu"}, r"Unknown activation 'sillu'\. Did you mean 'silu'\?"),
        ({"positions": "last"}, r"Unknown positions 'last'\."),
        ({"positions": "first_last(0,0)"}, "selects no token"),
        ({"r": 0}, r"r=0 must be a whole number of at least 1"),
        ({"r": -8}, r"r=-8 must be"),
        ({"r": 2.5}, r"r=2\.5 must be"),
        ({"r": True}, r"r=True must be"),
        ({"r": "8"}, r"r='8' must be"),
        ({"strength": float("nan")}, r"strength=nan must be a finite number"),
        ({"strength": "full"}, r"strength='full' must be"),
        ({"strength": None}, r"strength=None must be"),
        ({"init_scale": float("inf")}, r"init_scale=inf must be"),
        ({"layers": []}, r"layers=\[\] must name at least one layer"),
        ({"layers": [1, 1]}, r"each one once"),
        ({"layers": [-1]}, r"-1 is not the index of a layer"),
        ({"layers": [1.0]}, r"1\.0 is not the index of a layer"),
        ({"layers": ["2"]}, r"'2' is not the index of a layer"),
        ({"layers": 2}, r"layers=2 must be a list"),
        ({"layers": "02"}, r"layers='02' must be a list"),
        ({"use_bias": "no"}, r"use_bias='no' must be True or False"),
        ({"normalize": 1}, r"normalize=1 must be True or False"),
        ({"intervention": "vector", "activation": "silu"}, r"'vector' takes no activation"),
        ({"intervention": "vector", "use_bias": True}, r"'vector' takes no use_bias"),
        ({"intervention": "vector", "normalize": True}, r"'vector' takes no normalize"),
        ({"intervention": "vector", "init_scale": 1e-3}, r"'vector' takes no init_scale"),
        ({"exclude_modules": ["model.layers.1"]}, r"exclude_modules leaves modules out of target_modules.*`layers`"),
        ({"target_modules": ["fc"], "site": "mlp"}, r"leave site and layers at their default"),
        ({"target_modules": ["fc"], "layers": [0]}, r"leave site and layers at their default"),
        ({"task_type": "CAUSAL"}, r"CAUSAL"),
    ],
)
def test_a_mistake_is_named(options: dict[str, Any], message: str) -> None:
    """Each wrong value is an error of the constructor that names the field or the nearest choice."""
    with pytest.raises(ValueError, match=message):
        SteeringConfig(**options)


def test_an_unknown_option_is_refused() -> None:
    """A field that is not there is an error that names it."""
    with pytest.raises(TypeError, match="lora_alpha"):
        SteeringConfig(lora_alpha=16)  # type: ignore[call-arg]


@pytest.mark.parametrize("how", ["pickle", "deepcopy", "copy", "dict"])
def test_copies_are_equal(how: str) -> None:
    """Pickled, copied deeply or not, or rebuilt from its dict, every field is the same."""
    config = SteeringConfig(**CHOSEN)
    again = {
        "pickle": lambda: pickle.loads(pickle.dumps(config)),  # noqa: S301
        "deepcopy": lambda: copy.deepcopy(config),
        "copy": lambda: copy.copy(config),
        "dict": lambda: SteeringConfig(**{k: v for k, v in config.to_dict().items() if k != "peft_type"}),
    }[how]()
    assert type(again) is SteeringConfig
    assert again.to_dict() == config.to_dict()
    assert again.peft_type is config.peft_type


def test_a_deep_copy_is_independent() -> None:
    """Changing the copy's lists does not change the original."""
    config = SteeringConfig(**CHOSEN)
    copy.deepcopy(config).layers.append(5)
    assert config.layers == [0, 2]


@pytest.mark.parametrize("loader", [PeftConfig, SteeringConfig])
def test_saved_and_loaded(loader: type[PeftConfig], tmp_path: Path) -> None:
    """Through its JSON file, read by PEFT's class or its own, every field is the same."""
    SteeringConfig(**CHOSEN).save_pretrained(tmp_path)
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    for field, value in CHOSEN.items():
        assert written[field] == value, field
    loaded = loader.from_pretrained(tmp_path)
    assert type(loaded) is SteeringConfig
    for field, value in CHOSEN.items():
        assert getattr(loaded, field) == value, field
    assert loaded.task_type == TaskType.CAUSAL_LM


@pytest.mark.parametrize("edit", [{"site": "blok"}, {"r": 0}, {"positions": "first"}, {"strength": None}])
@pytest.mark.parametrize("loader", [PeftConfig, SteeringConfig])
def test_an_edited_file_is_checked_like_the_constructor(
    loader: type[PeftConfig], edit: dict[str, Any], tmp_path: Path
) -> None:
    """A wrong value in the JSON file is an error that names it, not a default."""
    SteeringConfig(**CHOSEN).save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    (value,) = edit.values()
    with pytest.raises(ValueError, match=str(value)):
        loader.from_pretrained(tmp_path)


def test_target_modules_as_pefts_tuners_keep_them() -> None:
    """A list becomes a set, a regular expression stays a text."""
    assert SteeringConfig(target_modules=["fc1", "fc2"]).target_modules == {"fc1", "fc2"}
    assert SteeringConfig(target_modules=r".*\.fc[12]").target_modules == r".*\.fc[12]"
