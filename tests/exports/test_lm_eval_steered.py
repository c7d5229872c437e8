"""Adapters of vectors in lm-eval's format "steered": the same logits, and what cannot be said in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from exports.vector_adapters import plain, saved
from tiny_models import tiny_model, token_ids
from trimtab import JointConfig
from trimtab.exports import Source, get_export

IDS = token_ids(2, 7)


def exported(folder: Path) -> dict[str, dict[str, Any]]:
    """What is in the file, read as the harness reads it."""
    get_export("lm-eval-steered").write(Source(adapter=folder / "adapter"), folder / "steer.pt")
    return torch.load(folder / "steer.pt", weights_only=True)


def by_hooks(folder: Path, content: dict[str, dict[str, Any]], dtype: torch.dtype) -> torch.Tensor:
    """The logits of the plain base, its modules' outputs moved as the format says."""
    base = plain(folder, dtype)
    for name, what in content.items():
        assert what["action"] == "add"
        vector, coefficient = what["steering_vector"].to(dtype), what["steering_coefficient"]

        def moved(_: Any, __: Any, output: Any, vector: Any = vector, coefficient: float = coefficient) -> Any:
            if isinstance(output, tuple):
                return (output[0] + coefficient * vector, *output[1:])
            return output + coefficient * vector

        base.base_model.get_submodule(name).register_forward_hook(moved)
    with torch.no_grad():
        return base(input_ids=IDS).logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("llama", {}),
        ("llama", {"strength": 0.3, "layers": [0, 2]}),
        ("gpt2", {}),
        ("gemma3_text", {"site": "mlp"}),
        ("qwen3", {"site": "attention", "layers": [1]}),
        ("gpt_neox", {}),
    ],
)
def test_the_logits_are_identical(tmp_path: Path, family: str, options: dict[str, Any], dtype: torch.dtype) -> None:
    """Bit for bit, in half precision too, wherever the vectors are added and at whatever strength."""
    model = saved(tmp_path, family, dtype, **options)
    content = exported(tmp_path)
    assert len(content) == len(options.get("layers", range(3)))
    with torch.no_grad():
        expected = model(input_ids=IDS).logits
        with model.disable_adapter():
            assert not torch.equal(model(input_ids=IDS).logits, expected)
    assert torch.equal(by_hooks(tmp_path, content, dtype), expected)


def test_a_scaled_residual_stream(tmp_path: Path) -> None:
    """Granite multiplies what its sub-layers add: the vector is divided by that, to rounding."""
    model = saved(tmp_path, "granite", site="mlp")
    with torch.no_grad():
        torch.testing.assert_close(
            by_hooks(tmp_path, exported(tmp_path), torch.float32), model(input_ids=IDS).logits, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"intervention": "low_rank", "r": 2}, "the shift of 'low_rank' depends on the hidden state"),
        ({"positions": "last_prompt"}, "steers the positions 'last_prompt' only"),
        ({"site": "mlp_input"}, "'mlp_input' is the input of a module"),
        ({"modules_to_save": ["lm_head"]}, "weights of its own in lm_head"),
    ],
)
def test_what_cannot_be_said_is_refused(tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    """With the reason and what to do instead; no file is left."""
    saved(tmp_path, **options)
    with pytest.raises(ValueError, match=rf"{reason}\. Score it in memory instead"):
        exported(tmp_path)
    assert not list(tmp_path.glob("*.pt"))


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"), "LORA"),
        (JointConfig(intervention="vector", lora=LoraConfig(r=2, target_modules="all-linear")), "JOINT"),
    ],
)
def test_other_adapters_are_refused(tmp_path: Path, config: Any, kind: str) -> None:
    """Also one of which a half could be said."""
    get_peft_model(tiny_model("llama"), config).save_pretrained(str(tmp_path / "adapter"))
    with pytest.raises(ValueError, match=f"adapter of type {kind}"):
        exported(tmp_path)
