"""The MLP's share of the block's output, against numpy on prompts that are read one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from analysis.subjects import alone, prompts, steered, subject
from tiny_models import tiny_model
from trimtab.analysis import AnalysisOptions
from trimtab.analysis.mlp_share import MlpShare, mlp_share

NAMES = {
    "llama": ("mlp", "self_attn"),
    "gemma3_text": ("post_feedforward_layernorm", "post_attention_layernorm"),
    "granite": ("mlp", "self_attn"),
}
"""What writes to the stream in a layer, from the families' source code."""


@pytest.mark.parametrize("family", NAMES)
def test_shares_equal_those_of_the_formula(family: str) -> None:
    """Per layer and prompt: the mean over tokens, without the first, of the four ratios."""
    model = tiny_model(family)
    found = mlp_share(subject(model), AnalysisOptions(batch_tokens=40))
    factor = getattr(model.config, "residual_multiplier", 1.0)
    mlp_name, attention_name = NAMES[family]
    assert found.layers == (0, 1, 2)
    for index, prompt in enumerate(prompts()):
        for layer in found.layers:
            stem = f"model.layers.{layer}"
            names = {"z": (stem, "output"), "G": (f"{stem}.{mlp_name}", "output")}
            names["A"] = (f"{stem}.{attention_name}", "output")
            seen = alone(model, names, prompt)
            z, G, A = (seen[key][1:] for key in ("z", "G", "A"))
            size, of_mlp, of_attention = (np.linalg.norm(each, axis=1) for each in (z, factor * G, factor * A))
            wanted = {
                "mlp": of_mlp / size,
                "attention": of_attention / size,
                "mlp_along": factor * (G * z).sum(1) / size**2,
                "of_added": of_mlp / (of_mlp + of_attention),
            }
            for name, values in wanted.items():
                assert getattr(found, name)[layer, index].item() == pytest.approx(values.mean(), rel=1e-3, abs=1e-5)


def test_prompts_without_measured_tokens_do_not_count() -> None:
    """Where all tokens are skipped there is no share, and the figures leave the prompt out."""
    found = mlp_share(subject(), AnalysisOptions(skip_first=5))
    short = torch.tensor([len(prompt) <= 5 for prompt in prompts()])
    assert short.any()
    assert torch.equal(found.mlp.isnan().any(0), short)
    assert "nan" not in found.summary


def test_an_adapter_is_off() -> None:
    """It is the base that is measured."""
    plain, adapted = (mlp_share(subject(model), AnalysisOptions()) for model in (tiny_model(), steered()))
    assert torch.equal(plain.mlp, adapted.mlp)


def test_chosen_layers() -> None:
    """Only these."""
    found = mlp_share(subject(), AnalysisOptions(layers=(2,)))
    assert found.layers == (2,)
    assert torch.equal(found.mlp, mlp_share(subject(), AnalysisOptions()).mlp[2:])


def test_words_and_figure() -> None:
    """The summary counts the layers within the paper's range; the figure has a line for each quantity."""
    shares = torch.tensor([[0.2, 0.2], [0.5, 0.5], [0.9, 0.9]])
    found = MlpShare((0, 1, 2), shares, 0.5 * shares, 0.1 * shares, 0.6 * shares)
    assert "20% to 90%" in found.summary
    assert "1 of 3 layers" in found.summary
    (axes,) = found.figure().axes
    assert [line.get_ydata().tolist() for line in axes.lines[:2]] == [
        pytest.approx([0.2, 0.5, 0.9]),
        pytest.approx([0.1, 0.25, 0.45]),
    ]
