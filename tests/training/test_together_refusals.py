"""What cannot be trained together is refused, and nothing is written or changed by that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel

from small_runs import StopAfter, run
from tiny_language import LastLetter, byte_tokenizer, tiny_model
from training.runs_together import METHODS, files, jobs, together
from trimtab.methods import get_method
from trimtab.training import Job, train_together


def start(out: Path, chosen: list[Job], model: PreTrainedModel | None = None) -> None:
    """Train these jobs together."""
    train_together(
        model or tiny_model(), chosen, LastLetter(), out / "group", tokenizer=byte_tokenizer(), progress=False
    )


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("lora", "only steering adapters"),
        ("joint", "only steering adapters"),
        ("sft", "only steering adapters"),
        ("lofit", "selects heads"),
        ("jola", "random numbers"),
        (get_method("lofit-all-heads", intervention="head_scale"), "penalty"),
    ],
)
def test_methods_that_cannot_be_trained_together_are_refused(tmp_path: Path, method: Any, reason: str) -> None:
    """By name and with the reason, before anything is written."""
    chosen = get_method(method) if isinstance(method, str) else method
    with pytest.raises(ValueError, match=f"{chosen.name}.* cannot be trained together with others: .*{reason}"):
        together(tmp_path, [METHODS[0], (chosen, 1)])
    assert files(tmp_path) == {}


def test_what_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    """Settings other than the seed, one directory for two runs, no run, a base with dropout, a finished run."""
    first, second = jobs(tmp_path, METHODS[:2])
    with pytest.raises(ValueError, match=r"differ in the seed only, not in batch_size \(8 and 4\)"):
        start(tmp_path, [first, replace(second, settings=replace(second.settings, batch_size=4))])
    with pytest.raises(ValueError, match="Two runs have the directory"):
        start(tmp_path, [first, replace(second, out_dir=first.out_dir)])
    with pytest.raises(ValueError, match="no runs"):
        start(tmp_path, [])
    with pytest.raises(ValueError, match="dropout"):
        start(tmp_path, [first, second], tiny_model(attention_dropout=0.1))
    assert files(tmp_path) == {}
    run(first.out_dir, first.method)
    before = files(tmp_path)
    with pytest.raises(FileExistsError, match="finished"):
        start(tmp_path, [first, second])
    assert files(tmp_path) == before


def test_an_adapter_that_does_not_fit_costs_nothing(tmp_path: Path) -> None:
    """No directory is made, and the base is as before."""
    model = tiny_model()
    keys = set(model.state_dict())
    with pytest.raises(ValueError, match="99"):
        together(tmp_path, [METHODS[0], (get_method("post-block", layers=[99]), 1)], model=model)
    assert files(tmp_path) == {}
    assert set(model.state_dict()) == keys


def test_another_groups_directory_is_left_alone(tmp_path: Path) -> None:
    """The directory of an interrupted pass is not taken for that of other runs."""
    with pytest.raises(KeyboardInterrupt):
        together(tmp_path, METHODS[:2], callbacks=[StopAfter(3)])
    before = files(tmp_path / "group")
    with pytest.raises(FileExistsError, match=r"runs\.0\.method\.learning_rate \(0\.002 there, 0\.02 here\)"):
        start(tmp_path, jobs(tmp_path / "other", METHODS[1:3]))
    assert files(tmp_path / "group") == before
    assert not (tmp_path / "other").exists()
