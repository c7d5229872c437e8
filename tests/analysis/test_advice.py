"""What an advice makes of its numbers, here made up: an exhaustive search, a ranking, choices, words and a figure."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
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
    """Over every site, rank and set of layers that fits, of maps and of vectors; a map of rank 1 has 8 parameters."""
    advice = made_up()
    found = advice.best_within(parameters, (1, 2, 3))
    every = [
        advice.choice(site, rank, group)
        for site in advice.sites
        for rank in (None, 1, 2, 3)
        for size in range(1, 5)
        for group in combinations(range(4), size)
    ]
    assert list(found) == (["map", "vector"] if parameters >= 8 else ["vector"])
    for kind, best in found.items():
        fitting = [
            each for each in every if each.parameters <= parameters and (each.rank is None) == (kind == "vector")
        ]
        assert best in fitting
        assert best.gain == pytest.approx(max(choice.gain for choice in fitting))
    with pytest.raises(ValueError, match="No adapter has at most 3 parameters"):
        advice.best_within(3)


def test_maps_and_vectors_are_ranked_apart_by_gain_a_parameter() -> None:
    """All sites, in all layers, thirds and each layer once; gains add up."""
    advice = made_up()
    rankings = advice.rankings((1, 3))
    places = 2 * (1 + 3 + 4) - 2 * 2  # two thirds are one layer
    assert {kind: len(set(choices)) for kind, choices in rankings.items()} == {"map": 2 * places, "vector": places}
    assert {choice.rank for choice in rankings["map"]} == {1, 3}
    assert {choice.rank for choice in rankings["vector"]} == {None}
    for choices in rankings.values():
        assert len(choices) == len(set(choices))
        quotients = [choice.gain / choice.parameters for choice in choices]
        assert quotients == sorted(quotients, reverse=True)
    whole = advice.choice("mlp", 3)
    assert whole.parameters == 4 * 2 * 8 * 3
    assert whole.gain == pytest.approx(sum(advice.choice("mlp", 3, part).gain for part in thirds(advice.layers)))


def test_a_rank_that_no_site_has_room_for_is_refused() -> None:
    """Widths are 4 and 8: rank 5 is left out at the first, rank 9 is an error."""
    advice = made_up()
    wider = replace(advice, singular_values=(torch.ones(4, 4), torch.ones(4, 8)))
    found = {(choice.site, choice.rank) for choice in wider.rankings((1, 5))["map"]}
    assert found == {("block", 1), ("mlp", 1), ("mlp", 5)}
    for ask in (advice.rankings, lambda ranks: advice.best_within(1000, ranks)):
        with pytest.raises(ValueError, match=r"'mlp', is 8 wide, too little for rank 9: give at most 8"):
            ask((1, 9))


def test_the_caveat_says_what_the_committed_measurements_say() -> None:
    """Of gains per parameter: how predictions and measurements are ordered in benchmarks/results/advisor.json."""
    committed = Path(__file__).parents[2] / "benchmarks" / "results" / "advisor.json"
    rows = json.loads(committed.read_text(encoding="utf-8"))["rows"]
    maps, vectors = ([row for row in rows if (row["rank"] is None) == is_vector] for is_vector in (False, True))
    measured = {row["label"]: row["measured"] / row["parameters"] for row in rows}
    assert min(measured[row["label"]] for row in vectors) > max(measured[row["label"]] for row in maps)

    def predicted(row: dict[str, Any], name: str) -> float:
        return row["predicted"][name] / row["parameters"]

    def rho(group: list[dict[str, Any]], name: str) -> float:
        """Spearman's, of values without ties: Pearson's of their places."""
        values = [[predicted(row, name), measured[row["label"]]] for row in group]
        return float(np.corrcoef(np.argsort(np.argsort(values, axis=0), axis=0).T)[0, 1])

    for ball in ("spectral", "Frobenius"):
        for radius in ("relative", "absolute"):
            name = f"{radius}, {ball}"
            assert max(predicted(row, name) for row in maps) > min(predicted(row, name) for row in vectors)
            for group in (maps, vectors):
                assert (rho(group, name) > 0.7) == (radius == "relative")
    assert rho(maps, "absolute, spectral, reads h") > 0.7 > 0 > rho(vectors, "absolute, spectral, reads h")

    advice = made_up()
    caveats = [
        replace(advice, radius=radius, normalize=normalize).caveat
        for radius, normalize in (("relative", True), ("absolute", True), ("absolute", False))
    ]
    assert all("every vector gained more per parameter than any map" in caveat for caveat in caveats)
    endings = ["as the number of parameters alone.", "no guide among maps or vectors.", "no guide among vectors."]
    assert [caveat.endswith(ending) for caveat, ending in zip(caveats, endings, strict=True)] == [True] * 3


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
    """Plain JSON with the rankings; a figure in which no axis has maps and vectors; words with the best site's name."""
    advice = made_up()
    content = json.loads(json.dumps(advice.to_dict()))
    assert {kind: rows[0]["gain"] for kind, rows in content["rankings"].items()} == {
        kind: pytest.approx(choices[0].gain) for kind, choices in advice.rankings((1, 2)).items()
    }
    assert content["caveat"] == advice.caveat
    maps, vectors, by_size, each = advice.figure().axes
    assert [line.get_label() for line in maps.get_lines()] == ["block", "mlp"]
    for axes, rank in ((maps, 3), (vectors, None)):
        for line, site in zip(axes.get_lines(), advice.sites, strict=True):
            assert list(line.get_ydata()) == advice.gains(site, rank).tolist()
    for gains, quotients, site in zip(by_size.get_lines(), each.get_lines(), advice.sites, strict=True):
        parameters, heights = (torch.as_tensor(values) for values in gains.get_data())
        width = dict(zip(advice.sites, advice.widths, strict=True))[site]
        assert parameters.tolist() == [4 * 2 * width * rank for rank in (1, 2)]  # no vector among them
        assert torch.allclose(torch.as_tensor(quotients.get_ydata()) * parameters, 1000 * heights)
    best = max(("block", "mlp"), key=lambda site: advice.choice(site, 3).gain)
    assert repr(best) in advice.summary
    assert "h / rms(h)" in advice.caption


def test_a_choice_in_words() -> None:
    """As a table says it."""
    assert Choice("mlp", (0,), None, 8, 1.0).what == "vector"
    assert Choice("mlp", (0,), 4, 64, 1.0).what == "r=4"
