"""The table of analyses: which of them apply, what is said of the others, and findings as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

import trimtab.analysis as package
from analysis.subjects import steered, subject, with_lora
from tiny_models import assert_same, fingerprint
from trimtab.analysis import Analysis, AnalysisOptions, Finding, NothingToMeasureError, analyze, get_analysis
from trimtab.analysis.base import needs_adapter, needs_joint_adapter
from trimtab.analysis.layers import spread, within_memory

MANY = {"count": 40, "longest": 14}
OPTIONS = AnalysisOptions(directions=5, ranks=(1, 3), max_texts=1)
OWN = ("alignment", "mlp_share", "oracle", "post_block")


@dataclass(frozen=True)
class Numbers(Finding):
    """A finding with all kinds of values."""

    name: str
    tensors: dict[str, Tensor]
    pair: tuple[float, Tensor]

    def figure(self) -> Figure:
        """Nothing."""
        return Figure()

    caption = "c"
    summary = "s"


def test_a_finding_as_json() -> None:
    """Tensors as nested lists, tuples as lists; what is not finite is null, which JSON has."""
    tensor = torch.tensor([[1.0, torch.nan], [torch.inf, 2.0]])
    content = Numbers("n", {"t": tensor}, (float("-inf"), torch.tensor(3))).to_dict()
    assert json.loads(json.dumps(content, allow_nan=False)) == {
        "name": "n",
        "tensors": {"t": [[1.0, None], [None, 2.0]]},
        "pair": [None, 3],
    }


def test_of_a_base_what_needs_no_training_is_measured() -> None:
    """The others are listed with what they would need."""
    found = analyze(subject(**MANY), OPTIONS)
    assert {"mlp_share", "post_block"} <= found.findings.keys()
    assert {"alignment", "oracle"} <= found.skipped.keys()
    assert "give an adapter" in found.skipped["oracle"]
    assert found.findings.keys() | found.skipped.keys() == set(package.analysis_names())


@pytest.mark.parametrize("build", [steered, with_lora])
def test_of_an_adapter_everything_of_the_oracle_is_measured(build: object) -> None:
    """Each finding has numbers, a figure and words; the model is left as it was."""
    model = build()  # type: ignore[operator]
    before = fingerprint(model)
    found = analyze(subject(model, **MANY), OPTIONS, OWN)
    assert tuple(found.findings) == OWN
    assert_same(before, fingerprint(model))
    for finding in found.findings.values():
        json.dumps(finding.to_dict(), allow_nan=False)
        assert finding.figure().axes
        assert len(finding.caption) > 40
        assert finding.summary.endswith(".")
        assert "nan" not in finding.summary


def test_what_is_asked_for_must_apply() -> None:
    """Unknown names, layers that are not there, needs that are not met: an error before anything is measured."""
    with pytest.raises(ValueError, match="Did you mean 'mlp_share'"):
        analyze(subject(), OPTIONS, ["mlp_shares"])
    with pytest.raises(ValueError, match="Layer 3 is not there"):
        analyze(subject(), replace(OPTIONS, layers=(0, 3)))
    with pytest.raises(ValueError, match=r"oracle cannot be measured here\. It compares"):
        analyze(subject(**MANY), OPTIONS, ["mlp_share", "oracle"])
    with pytest.raises(ValueError, match="ranks="):
        AnalysisOptions(ranks=(0,))


def test_an_analysis_that_finds_nothing_is_listed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its reason; by itself it is an error."""

    def nothing(*_: object) -> Finding:
        raise NothingToMeasureError("There is nothing.")

    table = {"mlp_share": get_analysis("mlp_share"), "nothing": Analysis("Nothing", nothing)}
    monkeypatch.setattr(package, "_table", lambda: table)
    found = analyze(subject(), OPTIONS)
    assert list(found.findings) == ["mlp_share"]
    assert found.skipped == {"nothing": "There is nothing."}
    with pytest.raises(NothingToMeasureError):
        analyze(subject(), OPTIONS, ["nothing"])


def test_needs_of_adapters() -> None:
    """A base has none, and neither steering nor LoRA alone is joint."""
    assert "adapter" in str(needs_adapter(subject(), OPTIONS))
    assert needs_adapter(subject(steered()), OPTIONS) is None
    for model in (steered(), with_lora()):
        assert "joint" in str(needs_joint_adapter(subject(model), OPTIONS))


def test_groups_within_memory() -> None:
    """All keys in order, each group within the memory unless it is a single key."""
    sizes = {"a": 100, "b": 100, "c": 500, "d": 50}
    assert list(within_memory(sizes, 1600e-9)) == [["a", "b"], ["c"], ["d"]]
    assert list(within_memory(sizes, 1)) == [["a", "b", "c", "d"]]


def test_spread_keeps_both_ends() -> None:
    """Evenly, or everything where there is not more."""
    assert spread(range(30)) == [0, 10, 19, 29]
    assert spread((3, 5)) == [3, 5]
