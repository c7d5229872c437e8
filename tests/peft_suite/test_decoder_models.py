"""PEFT's tests on decoder-only language models, on tiny random models of the same families."""

from __future__ import annotations

from typing import Any

import pytest

from trimtab import SteeringConfig

from . import cases, suite
from .hub_models import DECODERS

theirs = suite.module("test_decoder_models")


class _NamedAsInPeft(SteeringConfig):
    """`layers` under the name that PEFT's methods give it."""

    def __init__(self, layers_to_transform: list[int] | None = None, **settings: Any) -> None:
        super().__init__(layers=layers_to_transform, **settings)


class TestDecoderModels(theirs.TestDecoderModels):
    """As PEFT's, and with a choice of layers."""

    @pytest.mark.parametrize("model_id", DECODERS)
    @pytest.mark.parametrize(("config_cls", "config_kwargs"), cases.DECODERS)
    def test_training_decoders_layer_indexing(
        self, model_id: str, config_cls: type, config_kwargs: dict[str, Any]
    ) -> None:
        """Only the chosen layers get parameters, all of them get gradients, and they survive saving."""
        self._test_training_layer_indexing(model_id, _NamedAsInPeft, config_kwargs.copy())
