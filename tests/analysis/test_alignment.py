"""Singular vectors of R X^T and R Phi^T, against numpy on hidden states that are read one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from analysis.subjects import moved, prompts, steered, subject, tokens_of
from tiny_models import tiny_model
from trimtab.analysis import AnalysisOptions, NothingToMeasureError
from trimtab.analysis.alignment import ANALYSIS, alignment

COUNT = 5
WRITERS = {"llama": "mlp.down_proj", "gpt2": "mlp.c_proj", "gpt_neox": "mlp.dense_4h_to_h", "opt": "fc2"}
LAYERS = {
    "llama": "model.layers",
    "gpt2": "transformer.h",
    "gpt_neox": "gpt_neox.layers",
    "opt": "model.decoder.layers",
}


def leading(matrix: np.ndarray) -> np.ndarray:
    """The COUNT leading left-singular vectors."""
    return np.linalg.svd(matrix)[0][:, :COUNT]


@pytest.mark.parametrize("family", WRITERS)
def test_matrices_equal_those_of_whole_activations(family: str) -> None:
    """R is the shift of the block's output, X the stream without the MLP's output, Phi what W_d reads."""
    base, tuned = tiny_model(family), moved(family)
    found = alignment(subject(base, tuned), AnalysisOptions(directions=COUNT, batch_tokens=40))
    assert found.layers == found.shown == (0, 1, 2)
    for index, layer in enumerate(found.layers):
        name = f"{LAYERS[family]}.{layer}"
        z, target = (tokens_of(model, name, "output", prompts()) for model in (base, tuned))
        writer = f"{name}.{WRITERS[family]}"
        mlp, phi = (tokens_of(base, writer, side, prompts()) for side in ("output", "input"))
        residual = target - z
        wanted = np.abs(leading(residual.T @ (z - mlp)).T @ leading(residual.T @ phi))
        np.testing.assert_allclose(found.matrices[index].numpy(), wanted, atol=2e-3)
        assert found.diagonal[index].item() == pytest.approx(np.diag(wanted).mean(), abs=2e-3)
        assert found.overlap[index].item() == pytest.approx((wanted**2).sum() / COUNT, abs=2e-3)
        read = np.abs(leading(residual.T @ z).T @ leading(residual.T @ phi))
        assert found.output_diagonal[index].item() == pytest.approx(np.diag(read).mean(), abs=2e-3)
        assert found.output_overlap[index].item() == pytest.approx((read**2).sum() / COUNT, abs=2e-3)


def test_a_norm_behind_the_matrix_divides_its_features() -> None:
    """Gemma 3: G = (1 + w) * W_d Phi / rms(W_d Phi), so that a step of W_d along its gradient moves G by (1 + w)^2 * R.

    The reference takes W_d's gradient from autograd, with the root mean square held fixed.
    """
    base, tuned = tiny_model("gemma3_text"), moved("gemma3_text")
    for model in (base, tuned):
        with torch.no_grad():
            gain = model.model.layers[1].post_feedforward_layernorm.weight
            gain.copy_(torch.linspace(-0.9, 2.0, len(gain)))
    found = alignment(subject(base, tuned), AnalysisOptions(directions=COUNT))
    stem = "model.layers.1"
    z, target = (tokens_of(model, stem, "output", prompts()) for model in (base, tuned))
    added = tokens_of(base, f"{stem}.post_feedforward_layernorm", "output", prompts())
    phi, written = (tokens_of(base, f"{stem}.mlp.down_proj", side, prompts()) for side in ("input", "output"))
    phi = phi / np.sqrt((written**2).mean(1, keepdims=True))
    weight = torch.zeros(z.shape[1], phi.shape[1], dtype=torch.float64, requires_grad=True)
    gain = 1 + base.model.layers[1].post_feedforward_layernorm.weight.detach().double()

    def output(matrix: torch.Tensor) -> torch.Tensor:
        return gain * (torch.from_numpy(phi).double() @ matrix.T)

    (output(weight) * torch.from_numpy(target - z).double()).sum().backward()
    moves = output(weight.grad).T.numpy()  # of the stream, a column a token: its column space is what is compared
    directions = np.linalg.svd(moves @ np.linalg.pinv(phi.astype(np.float64).T))[0][:, :COUNT]
    wanted = np.abs(leading((target - z).T @ (z - added)).T @ directions)
    np.testing.assert_allclose(found.matrices[1].numpy(), wanted, atol=2e-3)


def test_little_memory_gives_the_same() -> None:
    """One layer at a time."""
    one = subject(tiny_model(), moved())
    both = [alignment(one, AnalysisOptions(directions=COUNT, memory_gb=size)) for size in (1e-9, 1.0)]
    assert torch.equal(both[0].matrices, both[1].matrices)


def test_layers_shifted_in_too_few_directions_are_left_out() -> None:
    """Behind a rank-3 adapter in layer 1 only layer 2 is shifted in five directions; the rounding does not count."""
    found = alignment(subject(steered(layers=[1])), AnalysisOptions(directions=COUNT))
    assert found.layers == (2,)
    with pytest.raises(NothingToMeasureError, match="5 directions"):
        alignment(subject(steered(layers=[2])), AnalysisOptions(directions=COUNT))


def test_what_it_needs() -> None:
    """Something trained, float32, one matrix at the end of each MLP, not more directions than there are."""
    options = AnalysisOptions(directions=COUNT)
    assert "fine-tuned" in str(ANALYSIS.missing(subject(), options))
    assert "float32" in str(ANALYSIS.missing(subject(steered().to(torch.bfloat16)), options))
    assert "one matrix" in str(ANALYSIS.missing(subject("mixtral", moved("mixtral")), options))
    assert "--directions" in str(ANALYSIS.missing(subject(steered()), AnalysisOptions(directions=25)))
    assert ANALYSIS.missing(subject(steered()), options) is None
