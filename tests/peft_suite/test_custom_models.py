"""PEFT's tests on small networks of torch modules."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from torch import nn

from trimtab import SteeringConfig

from . import suite

theirs = suite.module("test_custom_models")

TestPeftCustomModel = theirs.TestPeftCustomModel
TestMultiRankAdapter = theirs.TestMultiRankAdapter
TestLayerRepr = theirs.TestLayerRepr
TestMultipleActiveAdapters = theirs.TestMultipleActiveAdapters
TestDynamicDispatch = theirs.TestDynamicDispatch
TestDefaultTargetModules = theirs.TestDefaultTargetModules
TestPeftFsdpStateDict = theirs.TestPeftFsdpStateDict


class TestMixedAdapterBatches(theirs.TestMixedAdapterBatches):
    """As PEFT's, and on attention too, where LoRA cannot."""

    @pytest.mark.parametrize("intervention", ["low_rank", "vector"])
    def test_mixed_adapter_batches_mha(self, intervention: str) -> None:
        """Rows on the base and on two adapters give what each gives alone, where the host returns a tuple."""
        torch.manual_seed(0)
        config = SteeringConfig(target_modules=["mha"], intervention=intervention, init_weights=False)
        model = get_peft_model(theirs.ModelMha().eval(), config, "adapter0").eval()
        model.add_adapter("adapter1", config)
        self.run_checks(model, {"X": torch.arange(90).view(-1, 10)})


class TestRequiresGrad(theirs.TestRequiresGrad):
    """As PEFT's, with the names of our parameters in the place of LoRA's."""

    def check_requires_grad(self, model: nn.Module, *params_expected: str) -> None:
        """LoRA's A reads, as W_down does; its B writes, as W_up does."""
        super().check_requires_grad(model, *(_our_name(name) for name in params_expected))

    def test_loading_adapter_leaves_trainability_alone(self, tmp_path: Path) -> None:
        """Loading a second adapter changes nothing about which other parameters are trained."""
        config = SteeringConfig(target_modules=["layers.0.lin0"])
        get_peft_model(theirs.DeepMLP(size=256), config).save_pretrained(tmp_path)
        model = get_peft_model(theirs.DeepMLP(size=256), config)
        host = model.base_model.model.layers[0].lin0
        host.weight.requires_grad = True
        host.steering.steering_interventions["default"].down.requires_grad = False
        before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}

        model.load_adapter(tmp_path, adapter_name="other", is_trainable=False)

        after = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        assert {name: after[name] for name in before} == before
        assert not any(after[name] for name in after.keys() - before.keys())


def _our_name(name: str) -> str:
    host, is_lora, rest = name.partition(".lora_")
    if not is_lora:
        return name
    matrix, adapter = rest.removesuffix(".weight").rsplit(".", 1)
    return f"{host}.steering.steering_interventions.{adapter}.{'down' if matrix.endswith('A') else 'up'}"
