"""An adapter of vectors for the model type `steered` of lm-evaluation-harness."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftConfig, PeftModel
from peft.utils.peft_types import PeftType
from safetensors.torch import load_file
from torch import Tensor

from trimtab.exports.base import Export, Source
from trimtab.files import write_bytes
from trimtab.models import skeleton
from trimtab.tuners.saved import require_adapter
from trimtab.tuners.steering import SteeringConfig, SteeringLayer
from trimtab.tuners.steering.files import INTERVENTIONS, WEIGHTS, file_tensors

INSTEAD = "Score it in memory instead, which every adapter can be: HFLM(pretrained=model), see docs/how-to/lm-eval.md."


class LmEvalSteered(Export):
    """A file for `lm_eval --model steered --model_args pretrained=BASE,steer_path=FILE`.

    For each steered module, by its name in the base's backbone ("layers.3"), it holds the vector that is added to the
    module's output at every token, and the coefficient 1: z + 1 v with v = strength * vector, as the adapter computes
    it. Other shifts than constant ones cannot be said in this format.

    The harness (0.4.13; older ones add the last vector everywhere) reads its file by `torch.load`, as a pickle that may
    run code. This one does not: it is a dictionary of names, tensors and numbers, which
    `torch.load(weights_only=True)` accepts.
    """

    name = "lm-eval-steered"
    of = "adapter"
    suffix = ".pt"

    def write(self, source: Source, out: Path) -> str:
        """As `Export.write`; of the base only the configuration is read."""
        self.check(source, out)
        folder = cast(Path, source.adapter)
        shifts = constant_shifts(folder, source.base)
        content = {
            module: {"steering_vector": shift, "steering_coefficient": 1.0, "action": "add", "bias": None}
            for module, shift in shifts.items()
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(out, buffer.getvalue())
        said = f"lm_eval run --model steered --model_args pretrained=...,steer_path={out} --tasks ..."
        return f"{len(content)} vectors in {out}\nnext: {said}"


def constant_shifts(folder: Path, base: str | None = None) -> dict[str, Tensor]:
    """What a saved adapter adds to the output of each module, by the module's name in the base's backbone; each (d,).

    Args:
        folder: the adapter's directory.
        base: name or path of its base; None: the one that it names.

    Raises:
        ValueError: the adapter does something else than to add a vector to outputs at every token; it says what.
        FileNotFoundError: there is no adapter in `folder`.
    """
    require_adapter(folder)
    config = PeftConfig.from_pretrained(str(folder))
    _require_steering(config)
    file_tensors(folder / WEIGHTS)  # a damaged file is told before anything is built
    tensors = load_file(folder / WEIGHTS)
    bare = skeleton(base or str(config.base_model_name_or_path))
    names = {module: name for name, module in bare.base_model.named_modules()}
    model: Any = PeftModel.from_pretrained(bare, str(folder), low_cpu_mem_usage=True)
    shifts = {}
    for place, layer in model.named_modules():
        if not isinstance(layer, SteeringLayer):
            continue
        (adapter,) = layer.steering_interventions
        prefix = f"{place}.{INTERVENTIONS}."
        own = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
        layer.intervention(adapter).load_state_dict(own, assign=True)  # PEFT puts it on the base's device: meta
        shift = layer.intervention(adapter).constant_shift()
        if shift is None:
            raise ValueError(_refusal(f"the shift of {config.intervention!r} depends on the hidden state"))
        if layer.side == "input":
            raise ValueError(_refusal(f"the site {config.site!r} is the input of a module"))
        if layer.host not in names:
            raise ValueError(_refusal("a steered module lies outside of the base's backbone"))
        shifts[names[layer.host]] = layer.strengths[adapter] * shift.detach() / layer.multipliers[adapter]
    return shifts


def _require_steering(config: Any) -> None:
    """What the configuration says already."""
    if type(config) is not SteeringConfig:  # a joint adapter is one too, with a LoRA beside it
        raise ValueError(_refusal(f"this is an adapter of type {PeftType(config.peft_type).value}"))
    if not config.policy.everything:
        raise ValueError(_refusal(f"this adapter steers the positions {config.positions!r} only"))
    if config.modules_to_save:
        raise ValueError(_refusal(f"this adapter has weights of its own in {', '.join(config.modules_to_save)}"))


def _refusal(reason: str) -> str:
    return f"lm-eval's 'steered' adds a vector to outputs at every token, but {reason}. {INSTEAD}"
