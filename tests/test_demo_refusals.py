"""What the demo refuses before it trains.

Settings that cannot be run, a directory of something else, absent packages, and a second start with other settings.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from trimtab.demo import DemoSettings, run_demo


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_examples": 0}, "train_examples"),
        ({"methods": {"lorra": {}}}, "lora"),
        ({"methods": {"lora": {"rr": 3}}}, "'rr'"),
        ({"methods": {}}, "at least one method"),
        ({"task": "listops-smal"}, "listops-small"),
        ({"epochs": 0.0}, "epochs"),
    ],
)
def test_settings_that_cannot_be_run_are_refused(change: dict[str, object], message: str) -> None:
    """Before anything is trained."""
    with pytest.raises(ValueError, match=message):
        DemoSettings(**change)


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    """Neither files of a user nor a file in the place of the directory are touched."""
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(FileExistsError, match="something else"):
        run_demo(DemoSettings(), tmp_path, overwrite=True)
    with pytest.raises(FileExistsError, match="is a file"):
        run_demo(DemoSettings(), tmp_path / "letter.txt")
    assert (tmp_path / "letter.txt").read_text() == "dear"


def test_without_the_drawing_packages_nothing_is_trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The error says what to install, before the first step."""
    monkeypatch.setattr(
        "trimtab.demo.page.importlib", SimpleNamespace(util=SimpleNamespace(find_spec=lambda name: None))
    )
    with pytest.raises(ModuleNotFoundError, match="trimtab\\[report\\]"):
        run_demo(DemoSettings(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_change_of_any_setting_is_noticed() -> None:
    """What is compared with a later start is what was written, the methods' own settings included."""
    settings = DemoSettings()
    written = json.loads(json.dumps(settings.to_dict()))
    assert settings.differences(written) == []
    assert replace(settings, seed=1).differences(written) == ["seed"]
    written["methods"]["lora"]["schedule"] = "constant"  # as if the named method had been another one then
    assert settings.differences(written) == ["methods"]
