"""How PEFT's tests are loaded, run and skipped here."""

from __future__ import annotations

from collections.abc import Generator
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import pytest

from trimtab.tuners.steering import SteeringLayer

from . import suite
from .hub_models import save_all
from .skipped import CANNOT_MERGE, SKIPPED, pattern_to_skip
from .translation import PATCHES

HERE = Path(__file__).parent
THEIRS = ("test_custom_models.py", "test_decoder_models.py")
STEERS = pytest.StashKey[bool]()
NOISE = (
    "ignore:The PEFT config's `base_model_name_or_path` was renamed:UserWarning",
    "ignore:Could not find a config file in:UserWarning",
)
"""Warnings of PEFT that its own tests set off by the thousand: their networks have no name on the hub."""


def pytest_configure(config: pytest.Config) -> None:
    """Load PEFT's tests; where they cannot be had, test_sdist.py says why and the others are skipped."""
    cached = getattr(config, "cache", None)  # missing with `-p no:cacheprovider`
    folder = cached.mkdir("peft-sdist") if cached else config.rootpath / ".pytest_cache" / "d" / "peft-sdist"
    suite.load(Path(folder))


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the models that PEFT's tests load from the hub lie under their names."""
    return save_all(tmp_path_factory.mktemp("hub"))


@pytest.fixture(scope="session", autouse=True)
def _one_compilation_of_the_model_card() -> Generator[None]:
    """PEFT compiles the same template for every adapter it saves, which takes half the time of the suite."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(jinja2.Environment, "compile", cache(jinja2.Environment.compile))
        yield


@pytest.fixture(autouse=True)
def _as_the_test_expects(hub: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test where its models are, and with the names that it needs bound to steering."""
    monkeypatch.chdir(hub)
    patch = PATCHES.get(request.node.originalname)
    if patch is not None:
        patch(monkeypatch, suite.modules())


@pytest.fixture(autouse=True)
def _steering_is_noticed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remember whether the test makes a steering layer, for `pytest_runtest_makereport`."""
    make = SteeringLayer.__init__

    def make_and_tell(*args: Any, **options: Any) -> None:
        request.node.stash[STEERS] = True
        make(*args, **options)

    monkeypatch.setattr(SteeringLayer, "__init__", make_and_tell)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what the table says; where all tests are collected, an entry that no test matches is an error."""
    unused = dict(SKIPPED)
    for item in items:
        if HERE not in item.path.parents:
            continue
        item.add_marker(pytest.mark.filterwarnings(*NOISE))
        if pattern := pattern_to_skip(_name(item)):
            item.add_marker(pytest.mark.skip(SKIPPED[pattern]))
            unused.pop(pattern, None)
    if unused and suite.modules() and all(Path(argument).is_dir() for argument in config.args):
        raise pytest.UsageError(f"skipped.py lists what no test matches: {', '.join(unused)}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test fails that skips itself, or runs without steering: the table is to say all that is not tested."""
    report = yield
    if report.skipped and pattern_to_skip(_name(item)) is None and call.excinfo is not None:
        reason = str(call.excinfo.value)
        if reason not in CANNOT_MERGE:
            report.outcome = "failed"
            report.longrepr = f"It skipped itself, and skipped.py does not say so: {reason}"
    if call.when == "call" and report.passed and item.path.name in THEIRS and STEERS not in item.stash:
        report.outcome = "failed"
        report.longrepr = "It makes no steering layer: list it in skipped.py, or in translation.py."
    return report


def _name(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[2]
