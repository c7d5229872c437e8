"""PEFT's tests with `SteeringConfig` in the place of the configurations they name.

Their parametrisations are lists, which pytest reads when it collects: changing the content of a list changes
what a test is run with, and the test itself stays PEFT's, to the letter. Where a test about every method has
`LoraConfig` in its body, that name is bound to `steering_for_lora` while it runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from peft import LoraConfig, PeftConfig, TaskType
from torch import nn

from trimtab import SteeringConfig

from . import cases
from .hub_models import DECODERS
from .skipped import skip_if_not_mergeable

Patch = Callable[[pytest.MonkeyPatch, dict[str, ModuleType]], None]


def replace_cases(theirs: dict[str, ModuleType]) -> None:
    """Put our configurations into PEFT's lists, and our answers into its questions on what they can do."""
    custom, decoder = theirs["test_custom_models"], theirs["test_decoder_models"]
    ours = {
        (custom, "TEST_CASES"): cases.CUSTOM_MODELS,
        (custom, "ALL_PEFT_CONFIG_CLASSES"): [SteeringConfig],
        (custom, "MULTIPLE_ACTIVE_ADAPTERS_TEST_CASES"): cases.TWO_ADAPTERS,
        (custom, "MIXED_ADAPTER_TEST_CASES"): cases.TWO_ADAPTERS_BY_ROW,
        (decoder, "ALL_CONFIGS"): cases.DECODERS,
        (decoder, "PEFT_DECODER_MODELS_TO_TEST"): list(DECODERS),
    }
    for (module, name), content in ours.items():
        getattr(module, name)[:] = content
    for module in (custom, decoder):
        for rows in _lists_in_place(module):
            rows[:] = _translated(rows)
        module._skip_if_merging_not_supported = skip_if_not_mergeable
    common = theirs["testing_common"]
    common._skip_if_merging_not_supported = skip_if_not_mergeable
    # GPT-2's Conv1D, which many methods cannot adapt, is a host like any other.
    common._skip_if_conv1d_not_supported = lambda model_id, config_cls, config_kwargs: None
    # Meant for BEFT, it skips every method on models without biases.
    decoder.check_beft_config = lambda config_cls, model_id, config_kwargs: None


def _lists_in_place(module: ModuleType) -> Iterator[list[Any]]:
    """The lists that stand in the decorators of a module's tests."""
    for _, test_class in inspect.getmembers(module, inspect.isclass):
        for _, function in inspect.getmembers(test_class, inspect.isfunction):
            for mark in getattr(function, "pytestmark", ()):
                if mark.name == "parametrize" and isinstance(mark.args[1], list):
                    yield mark.args[1]


def _translated(rows: list[Any]) -> list[Any]:
    """The rows about LoRA, with steering in its place; all rows as they are if none is about LoRA."""
    translated = []
    for row in rows:
        values = row if isinstance(row, tuple) else (row,)
        if any(value is LoraConfig or isinstance(value, LoraConfig) for value in values):
            new = tuple(_steering(value) for value in values)
            translated.append(new if isinstance(row, tuple) else new[0])
    return translated or rows


def _steering(value: Any) -> Any:
    if value is LoraConfig:
        return SteeringConfig
    if isinstance(value, LoraConfig):
        kept = ("task_type", "target_modules", "modules_to_save", "init_lora_weights")
        return steering_for_lora(**{name: getattr(value, name) for name in kept})
    return value


def steering_for_lora(init_lora_weights: bool = True, r: int = 1, **settings: Any) -> PeftConfig:
    """What a test about any method gets when it asks for a LoRA configuration.

    The rank is 1 whatever LoRA's is: the narrowest target in these tests is one number wide.
    """
    if settings.get("task_type") == TaskType.SEQ_CLS and settings.get("target_modules") is None:
        settings["target_modules"] = [
            "query",
            "value",
        ]  # LoRA's own choice on BERT, which has no decoder layers
    return SteeringConfig(r=1, init_weights=init_lora_weights, **settings)


def _lora_is_steering(monkeypatch: pytest.MonkeyPatch, theirs: dict[str, ModuleType]) -> None:
    monkeypatch.setattr(theirs["test_custom_models"], "LoraConfig", steering_for_lora)


def _steering_is_asked_like_lora(monkeypatch: pytest.MonkeyPatch, theirs: dict[str, ModuleType]) -> None:
    """For tests that run with LoRA alone because few other methods can do what they ask."""
    for name in ("testing_common", "test_decoder_models"):
        monkeypatch.setattr(theirs[name], "LoraConfig", SteeringConfig)


def _host_speaks_for_its_layer(monkeypatch: pytest.MonkeyPatch, theirs: dict[str, ModuleType]) -> None:
    """For tests that look for the adapter layer in the place of the module it adapts; here it's its child."""
    for name in ("active_adapters", "adapter_layer_names", "steering_interventions"):
        monkeypatch.setattr(
            nn.Linear, name, property(lambda linear, name=name: getattr(linear.steering, name)), raising=False
        )


PATCHES: dict[str, Patch] = {
    "test_add_adapter_rejects_duplicate_name_without_mutation": _lora_is_steering,
    "test_delete_adapter_with_multiple_adapters_works": _lora_is_steering,
    "test_delete_adapter_multiple_adapters_with_modules_to_save": _lora_is_steering,
    "test_weight_bias_attributes": _lora_is_steering,
    "test_multiple_adapters_automatic_modules_to_save": _lora_is_steering,
    "test_multiple_adapters_no_needless_copy_modules_to_save": _lora_is_steering,
    "test_existing_model_card": _lora_is_steering,
    "test_non_existing_model_card": _lora_is_steering,
    "test_save_embedding_layers_excludes_similarly_named_sibling": _lora_is_steering,
    "test_load_does_not_overwrite_similarly_named_sibling": _lora_is_steering,
    "test_ignore_mismatched_sizes_with_scalar_modules_to_save": _lora_is_steering,
    "test_unload_adapter_multihead_attention": _lora_is_steering,
    "test_requires_grad_modules_to_save_default": _lora_is_steering,
    "test_requires_grad_modules_to_save_disabling": _lora_is_steering,
    "test_requires_grad_modules_to_save_multiple_adapters": _lora_is_steering,
    "test_requires_grad_follows_inference_mode_modules_to_save": _lora_is_steering,
    "test_requires_grad_lora_different_targets": _lora_is_steering,
    "test_requires_grad_lora_same_targets": _lora_is_steering,
    "test_requires_grad_lora_emb_conv1d": _lora_is_steering,
    "test_mixed_adapter_batches": _steering_is_asked_like_lora,
    "test_generate_with_mixed_adapter_batches": _steering_is_asked_like_lora,
    "test_set_adapter_non_overlapping_modules": _host_speaks_for_its_layer,
    "test_set_adapter_non_overlapping_modules_to_save": _host_speaks_for_its_layer,
    "test_set_requires_grad": _host_speaks_for_its_layer,
}
"""What a test needs while it runs, by the name of its function."""
