"""The oracle's shifts and the maps that explain them, against numpy and against adapters whose shift is known."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from analysis.subjects import moved, prompts, steered, subject, tokens_of, with_lora
from tiny_models import tiny_model
from trimtab.analysis import AnalysisOptions, NothingToMeasureError, analyze
from trimtab.analysis.oracle import ANALYSIS, SITES, oracle

MANY = {"count": 40, "longest": 14}
MODULES = {"block": "", "mlp": ".mlp", "attention": ".self_attn"}


@pytest.mark.parametrize("site", SITES)
def test_explained_shares_are_those_of_reduced_rank_regression(site: str) -> None:
    """Fitted by least squares and a singular value decomposition on one half, scored on the other."""
    base, tuned = tiny_model(), moved()
    options = AnalysisOptions(ranks=(1, 4, 24), ridge=0)
    found = oracle(subject(base, tuned, **MANY), options)
    row = found.sites.index(site)
    for layer in found.layers:
        name = f"model.layers.{layer}{MODULES[site]}"
        halves = []
        for half in (0, 1):
            chosen = prompts(**MANY)[half::2]
            h, after = (tokens_of(model, name, "output", chosen) for model in (base, tuned))
            halves.append((h, after - h))
        (h, shift), (h_held, shift_held) = halves
        best = scipy.linalg.lstsq(h, shift)[0]
        directions = np.linalg.svd(h @ best, full_matrices=False)[2]
        for column, rank in enumerate(found.ranks):
            predicted = h_held @ best @ directions[:rank].T @ directions[:rank]
            wanted = 1 - ((predicted - shift_held) ** 2).sum() / (shift_held**2).sum()
            assert found.explained[row, layer, column].item() == pytest.approx(wanted, abs=1e-3)
            sizes = np.linalg.svd(shift, compute_uv=False) ** 2
            assert found.energy[row, layer, rank - 1].item() == pytest.approx(
                sizes[:rank].sum() / sizes.sum(), rel=1e-4
            )
        wanted = 1 - ((shift.mean(0) - shift_held) ** 2).sum() / (shift_held**2).sum()
        assert found.vector[row, layer].item() == pytest.approx(wanted, abs=1e-4)
        both = [np.concatenate(each) for each in zip(*halves, strict=True)]
        ratio = np.linalg.norm(both[1]) / np.linalg.norm(both[0])
        assert found.size[row, layer].item() == pytest.approx(ratio, rel=1e-4)


def test_a_linear_adapter_is_explained_by_a_map_of_its_rank() -> None:
    """Rank 3 behind the last block: all at rank 3, not at rank 1; nothing is shifted anywhere else."""
    found = oracle(subject(steered(layers=[2]), **MANY), AnalysisOptions(ranks=(1, 3)))
    assert found.explained[0, 2, 1] > 0.9999
    assert found.explained[0, 2, 0] < 0.99
    elsewhere = torch.ones(found.size.shape, dtype=torch.bool)
    elsewhere[0, 2] = False
    assert found.explained[elsewhere].isnan().all()
    assert (found.size[elsewhere] == 0).all()
    assert "nan" not in found.summary


def test_a_vector_is_explained_by_a_vector() -> None:
    """And a linear map, which has no constant, explains less of it."""
    found = oracle(subject(steered(layers=[2], intervention="vector"), **MANY), AnalysisOptions(ranks=(1,)))
    assert found.vector[0, 2] > 0.9999
    assert found.explained[0, 2, 0] < 0.99


def test_little_memory_gives_the_same() -> None:
    """One site and layer at a time."""
    one = subject(with_lora(), **MANY)
    few, all_at_once = (oracle(one, AnalysisOptions(memory_gb=size)) for size in (1e-9, 1.0))
    assert torch.equal(few.explained, all_at_once.explained)
    assert few.explained.isfinite().all()


def test_an_adapter_that_does_nothing_has_no_shift() -> None:
    """There is nothing to measure; and a base alone lacks what is needed."""
    with pytest.raises(NothingToMeasureError, match="no shift"):
        oracle(subject(tiny_model(), tiny_model(), **MANY), AnalysisOptions())
    assert "fine-tuned" in str(ANALYSIS.missing(subject(**MANY), AnalysisOptions()))


def test_a_rank_that_was_asked_for_is_not_left_out() -> None:
    """Of the usual ranks those that fit are taken; a wider one that somebody named is an error."""
    assert ANALYSIS.missing(subject(tiny_model(), moved(), **MANY), AnalysisOptions()) is None
    with pytest.raises(
        ValueError, match=r"oracle cannot be measured here\. The model is 24 wide, too little for rank 25"
    ):
        analyze(subject(tiny_model(), moved(), **MANY), AnalysisOptions(ranks=(1, 25)), only=["oracle"])
    assert oracle(subject(tiny_model(), moved(), **MANY), AnalysisOptions(layers=(1,))).ranks == (1, 4, 8)
