"""What an advice makes of its numbers, here made up: an exhaustive search, a ranking, choices, words and a figure."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations

import pytest
import torch

from trimtab.analysis.advice import Advice
from trimtab.analysis.choice import Choice, thirds


def made_up() -> Advice:
    """An advice of two sites of widths 4 and 8 in four layers, with random numbers."""
    generator = torch.Generator().manual_seed(0)
    draw = [torch.rand(4, 3, generator=generator, dtype=torch.float64).sort(descending=True).values for _ in range(2)]
    return Advice(
        sites=("block", "mlp"),
        layers=(0, 1, 2, 3),
        model_layers=4,
        widths=(4, 8),
        singular_values=tuple(draw),
        vector_norms=torch.rand(2, 4, generator=generator, dtype=torch.float64) / 10,
        loss=2.0,
        answer_tokens=10,
        normalize=True,
        positions="all",
        lengths=torch.tensor([[1.0, 2, 3, 4], [3, 2, 2, 1]], dtype=torch.float64),
        ball="spectral",
        radius="relative",
    )


@pytest.mark.parametrize("parameters", [4, 8, 20, 33, 64, 1000])
def test_the_best_within_a_budget_is_that_of_an_exhaustive_search(parameters: int) -> None:
    """Over every site, kind and set of layers that fits."""
    advice = made_up()
    found = advice.best_within(parameters, (1, 2, 3))
    every = [
        advice.choice(site, rank, group)
        for site in advice.sites
        for rank in (None, 1, 2, 3)
        for size in range(1, 5)
        for group in combinations(range(4), size)
    ]
    fitting = [choice for choice in every if choice.parameters <= parameters]
    assert found.parameters <= parameters
    assert found.gain == pytest.approx(max(choice.gain for choice in fitting))
    with pytest.raises(ValueError, match="No adapter has at most 3 parameters"):
        advice.best_within(3)


def test_the_ranking_is_by_gain_a_parameter() -> None:
    """All sites and kinds, in all layers, thirds and each layer once; gains add up; too wide ranks are left out."""
    advice = made_up()
    ranking = advice.ranking((1, 3))
    assert len(ranking) == len(set(ranking)) == 2 * 3 * (1 + 3 + 4) - 2 * 3 * 2  # two thirds are one layer
    quotients = [choice.gain / choice.parameters for choice in ranking]
    assert quotients == sorted(quotients, reverse=True)
    whole = advice.choice("mlp", 3)
    assert whole.parameters == 4 * 2 * 8 * 3
    assert whole.gain == pytest.approx(sum(advice.choice("mlp", 3, part).gain for part in thirds(advice.layers)))
    assert {choice.rank for choice in advice.ranking((1, 9))} == {None, 1}


def test_reading_h_is_compared_as_if_h_were_of_typical_length() -> None:
    """Where all tokens have the same length l, h / rms(h) is h sqrt(d) / l, and a map promises the same either way."""
    normalized = made_up()
    scale = normalized.lengths / torch.tensor([4.0, 8]).sqrt()[:, None]  # rms(h)
    reads_h = replace(
        normalized,
        normalize=False,
        singular_values=tuple(s * rms[:, None] for s, rms in zip(normalized.singular_values, scale, strict=True)),
    )
    for site in normalized.sites:
        assert torch.allclose(reads_h.gains(site, 2), normalized.gains(site, 2))
        assert torch.equal(reads_h.gains(site, None), normalized.gains(site, None))


def test_thirds_cut_the_layers_into_three() -> None:
    """In order, of sizes that differ by one at most; two layers have none."""
    assert thirds(range(30)) == [tuple(range(10)), tuple(range(10, 20)), tuple(range(20, 30))]
    assert thirds([1, 3, 5, 8]) == [(1, 3), (5,), (8,)]
    assert thirds([0, 1]) == []


def test_it_can_be_written_drawn_and_said() -> None:
    """Plain JSON with the ranking; a figure with a line a site and kind; words with the best site's name."""
    advice = made_up()
    content = json.loads(json.dumps(advice.to_dict()))
    assert content["ranking"][0]["gain"] == pytest.approx(advice.ranking((1, 2))[0].gain)
    by_layer, by_size, each = advice.figure().axes
    assert [line.get_label() for line in by_layer.get_lines()][::2] == ["block", "mlp"]
    assert len(by_size.get_lines()) == 4
    for gains, quotients in zip(by_size.get_lines(), each.get_lines(), strict=True):
        parameters, heights = (torch.as_tensor(values) for values in gains.get_data())
        assert torch.allclose(torch.as_tensor(quotients.get_ydata()) * parameters, 1000 * heights)
    best = max(("block", "mlp"), key=lambda site: advice.choice(site, 3).gain)
    assert repr(best) in advice.summary
    assert "h / rms(h)" in advice.caption


def test_a_choice_in_words() -> None:
    """As a table says it."""
    assert Choice("mlp", (0,), None, 8, 1.0).what == "vector"
    assert Choice("mlp", (0,), 4, 64, 1.0).what == "r=4"
