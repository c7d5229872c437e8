"""The one table of what is not run, with the reasons; a test that skips itself for another reason fails."""

from __future__ import annotations

import re
from typing import Any

import pytest

OTHER = "about the internals of another method; it would not touch steering"
PROMPT = "about prompt learning, which has no layers to steer"
TOKENS = "about trainable_token_indices, a field of LoraConfig; steering trains embeddings by modules_to_save"
WEIGHTED = "add_weighted_adapter makes one LoRA of several; several steering adapters can be active together"
RESIZED = "a LoRA of an embedding grows with the vocabulary; a shift of its output does not"
PICKLE = "saves a pickle, which trimtab refuses to load"
CONV = "a convolution has its channels in dimension 1, steering acts on the last: refused with an error"
WRAPPED = "looks for `base_layer`, the adapted module inside its wrapper; trimtab wraps nothing"
BIASES = "LoRA's field `bias` trains the base model's biases; steering trains none"
MIXED = "PeftMixedModel has a fixed list of methods"
ATTENTION = "LoRA cannot mix adapters on attention; steering can"
DEFAULTS = "the default is a site, not a list of names for each model type"
NO_LABELS = "trains without labels, which say where the prompt ends: refused with an error"
DEPENDS = "merging: a low-rank shift depends on the hidden state, so no weight can hold it"
UNBIASED = "merging: the steered tensor has no bias to take the vector"
UNKNOWN = "merging: nobody knows what an unknown module does after its bias"
SAVED = "several active adapters with modules_to_save, which PEFT does not support"

_OTHER_METHODS = "ia3|glora|gralora|dora|p?vera|monteclora|adalora|osf"
_OTHER_METHODS_TARGETS = "loha|lokr|oft|hra|miss|boft|lntuning|randlora|vblora|fourierft"

SKIPPED: dict[str, str] = {
    # PEFT's tests of what one of its own methods does
    r"^TestDynamicDispatch|^TestMultiRankAdapter|^TestLayerRepr": OTHER,
    rf"::test_(\w+_)?({_OTHER_METHODS})(_|$|\[)": OTHER,
    rf"::test_requires_grad_({_OTHER_METHODS_TARGETS})_": OTHER,
    r"::test_mha_gradients_set_correctly|::test_mixed_adapter_batches_lora_opt_timing": OTHER,
    r"::test_lora_safe_merge|::test_merge_with_lora_bias": OTHER,
    r"::test_lora_layer_replication|::test_lora_embed_scale": OTHER,
    r"::test_merge_and_unload_fixes_tie_word_embeddings_config": OTHER,
    r"::test_(prompt|prefix)_|::test_training_prompt_learning|::test_set_requires_grad_prompt_": PROMPT,
    r"::test_\w*(trainable_token|trainble_token)": TOKENS,
    r"::test_\w*weighted|::test_multiple_adapters_\w*merging_adapters": WEIGHTED,
    r"::test_load_resized_embedding_ignore_mismatched_sizes": RESIZED,
    # what PEFT's tests expect and trimtab does not do, on purpose
    r"::test_save_pretrained(_selected_adapters)?_pickle\[": PICKLE,
    r"::test_mixed_adapter_batches_lora_conv2d|::test_requires_grad_lora_conv2d": CONV,
    r"::test_save_pretrained_targeting_lora_to_embedding_layer\[": WRAPPED,
    r"::test_loading_adapter_preserves_custom_requires_grad": WRAPPED,
    r"::test_adding_multiple_adapters_with_bias_raises|::test_disable_adapter_with_bias_warns": BIASES,
    r"::test_save_load_roundtrip_fsdp_wrapped_learnable_bias": BIASES,
    r"::test_add_adapter_rejects_duplicate_name_without_mutation\[True\]": MIXED,
    r"::test_mixed_adapter_batches_mha_raises": ATTENTION,
    r"::test_default_target_modules": DEFAULTS,
    r"::test_training_decoders_gradient_checkpointing\[\w+-last-prompt": NO_LABELS,
    r"::test_mixed_adapter_batches_merged_raises\[low-rank": DEPENDS,
    r"::test_active_adapter\[.*saving lin1": SAVED,
}
"""Reason by a pattern that is searched in "Class::function[parameters]"; the first that is found counts."""

CANNOT_MERGE = frozenset({DEPENDS, UNBIASED, UNKNOWN})
"""The reasons of `skip_if_not_mergeable`, which skips in the middle of a test."""

UNBIASED_FAMILIES = ("Llama", "qwen2", "Gemma3")
UNBIASED_ATTENTION = ("GPTJ",)


def pattern_to_skip(name: str) -> str | None:
    """The entry for the test called `name` ("Class::function[parameters]"); None if it is run."""
    return next((pattern for pattern in SKIPPED if re.search(pattern, name)), None)


def skip_if_not_mergeable(model_id: str, config_cls: type, config_kwargs: dict[str, Any]) -> None:
    """In the place of PEFT's function of this purpose, which its tests call just before they merge.

    It goes by the case and does not ask the adapter: one that wrongly refused to merge would skip its test.
    """
    if config_kwargs.get("intervention") != "vector":
        pytest.skip(DEPENDS)
    if model_id == "MlpUsingParameters":
        pytest.skip(UNKNOWN)
    unbiased = UNBIASED_FAMILIES
    if config_kwargs.get("site") == "attention":
        unbiased += UNBIASED_ATTENTION
    if "emb" in config_kwargs.get("target_modules", ()) or any(name in model_id for name in unbiased):
        pytest.skip(UNBIASED)
