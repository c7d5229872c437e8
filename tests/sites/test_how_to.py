"""The files that the how-to pages print do what the pages say, put into the folders as they are."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import trimtab.sites
from sites.captured import Captured
from sites.site_models import LLAMA
from trimtab.sites import decoder_layers, families, family_of, locate, site_names

# Phi rotates half of each head by default, and half of 6 is odd.
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0}

PAGES = Path(__file__).parents[2] / "docs" / "how-to"


@pytest.fixture
def add_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Put the Python file of a page into a package, under a name; take it out again after the test."""
    added: list[tuple[ModuleType, str]] = []

    def add(page: str, package: ModuleType, name: str) -> None:
        (code,) = re.findall(r"```python\n(.*?)```", (PAGES / page).read_text("utf-8"), flags=re.DOTALL)
        (tmp_path / f"{name}.py").write_text(code, "utf-8")
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
        trimtab.sites._sites.cache_clear()
        added.append((package, name))

    yield add
    trimtab.sites._sites.cache_clear()
    for package, name in added:
        sys.modules.pop(f"{package.__name__}.{name}", None)
        if hasattr(package, name):
            delattr(package, name)


def test_a_family_is_one_file(tiny: Any, add_file: Any) -> None:
    """Phi is refused with the file to add; with the page's file, its stream gains what its hosts carry."""
    model = tiny("phi", **LLAMA, rope_parameters=ROPE)
    with pytest.raises(ValueError, match=r"PhiModel \(model_type 'phi'\).*sites/families/phi\.py"):
        family_of(model)
    add_file("add-a-family.md", families, "phi")
    assert family_of(model).name == "phi"
    captured = Captured(model)
    for i, layer in enumerate(decoder_layers(model)[1]):
        total = captured["x", i] + captured["attention", i] + captured["mlp", i]
        torch.testing.assert_close(total, captured["block", i], rtol=1e-5, atol=1e-5)
        projected = layer.self_attn.dense(captured["heads", i])
        torch.testing.assert_close(projected, captured["attention", i], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gptj", "opt"])
def test_a_site_is_one_file(tiny: Any, add_file: Any, name: str) -> None:
    """With the page's file there is a site block_input, whose tensor is the stream that the layer reads."""
    model = tiny(name)
    with pytest.raises(ValueError, match="Unknown site 'block_input'"):
        locate(model, "block_input")
    add_file("add-a-site.md", trimtab.sites, "block_input")
    assert "block_input" in site_names()
    captured = Captured(model)
    for i in range(3):
        assert torch.equal(captured["block_input", i], captured["x", i])
        assert captured.hosts["block_input"][i].width == 24


def test_the_pages_name_what_there_is() -> None:
    """The table of sites lists the folder's sites, and the list of fields those that an anatomy has."""
    table = (PAGES / "add-a-site.md").read_text("utf-8")
    assert set(re.findall(r"^\| `(\w+)`", table, flags=re.MULTILINE)) == set(site_names())
    fields = (PAGES / "add-a-family.md").read_text("utf-8")
    described = set(re.findall(r"^\| `(\w+)`", fields, flags=re.MULTILINE)) | {"name", "model_types"}
    assert described == set(families.llama.FAMILY.__dataclass_fields__)
