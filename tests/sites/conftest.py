"""Fixtures of the tests on sites."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from transformers import PreTrainedModel

from sites.site_models import FAMILIES, randomise, tiny_config, tiny_model

# Adapters are tested on the same models (tests/tiny_models.py).
__all__ = ["FAMILIES", "family", "randomise", "tiny", "tiny_config"]


@pytest.fixture
def tiny() -> Callable[..., PreTrainedModel]:
    """Build a tiny random causal model, which the test may change: tiny("llama", num_hidden_layers=2)."""
    return tiny_model


@pytest.fixture(params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    """Each family in turn."""
    return request.param
