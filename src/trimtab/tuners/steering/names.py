"""The names of an adapter's parameters in a state dict, and the check of one that is loaded."""

from __future__ import annotations

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTuner
from torch import Tensor, nn

from trimtab.tuners.steering.config import SteeringConfig
from trimtab.tuners.steering.files import INTERVENTIONS, check_finite, check_keys, without_prefix
from trimtab.tuners.steering.loading import forget_check


class NamedTuner(BaseTuner):
    """The part of a PEFT tuner that knows how its parameters are called, with an adapter's name and without."""

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        """As PEFT's, which expects the adapter's name just before the parameter's; here modules may be in between."""
        shorter = key.replace(f".{INTERVENTIONS}.{adapter_name}.", f".{INTERVENTIONS}.")
        return shorter if shorter != key else super()._remove_adapter_name_from_key(key, adapter_name)

    @classmethod
    def _is_own(cls, key: str) -> bool:
        """Whether a name in a state dict is that of an adapter's parameter."""
        return INTERVENTIONS in key

    @classmethod
    def _expected(cls, model: nn.Module, adapter_name: str) -> dict[str, tuple[int, ...]]:
        """Names (as in a file, without PEFT's prefix) and shapes of an adapter's parameters."""
        return without_prefix(
            {
                cls._remove_adapter_name_from_key(name, adapter_name): tuple(parameter.shape)
                for name, parameter in model.named_parameters()
                if f"{INTERVENTIONS}.{adapter_name}." in name
            }
        )

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: SteeringConfig, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """As PEFT's, after a check: a state dict that lacks a key would leave a fresh adapter without a word."""
        found = {name: tuple(tensor.shape) for name, tensor in state_dict.items() if cls._is_own(name)}
        check_keys("The state dict", without_prefix(found), cls._expected(model, adapter_name))
        for name, tensor in state_dict.items():
            check_finite("The state dict", name, tensor)
        forget_check(model.get_base_model() if isinstance(model, PeftModel) else model)
        return super()._remap_adapter_state_dict_for_load(model, config, adapter_name, state_dict)
