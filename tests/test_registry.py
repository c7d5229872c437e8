"""Names become choices; unknown ones become errors that help."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trimtab.registry import check_choice, modules_in, unknown


def test_an_unknown_name_gets_the_nearest_and_all_others() -> None:
    """The error says what was asked, what is nearest, and what there is, in alphabetical order."""
    error = unknown("site", "blok", ["mlp", "block", "heads"])
    assert str(error) == "Unknown site 'blok'. Did you mean 'block'? Choose from: block, heads, mlp."


def test_a_name_like_no_other_gets_no_guess() -> None:
    """Where nothing is near, only the choices are listed."""
    assert str(unknown("site", "xyzzy", ["mlp"])) == "Unknown site 'xyzzy'. Choose from: mlp."


@pytest.mark.parametrize("name", [None, 3, True, ""])
def test_what_is_no_name_is_unknown_too(name: object) -> None:
    """None, a number or nothing at all is reported like any other unknown name."""
    with pytest.raises(ValueError, match="Unknown site"):
        check_choice("site", name, ["block", "mlp"])  # type: ignore[arg-type]


def test_a_known_name_comes_back() -> None:
    """check_choice returns the name that it was given."""
    assert check_choice("site", "mlp", {"block": 1, "mlp": 2}) == "mlp"


def test_a_folder_is_its_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is added to a package's folder is found, no private one; in alphabetical order."""
    folder = tmp_path / "shelf_of_modules"
    folder.mkdir()
    for name in ("__init__", "zebra", "apple", "_private"):
        (folder / f"{name}.py").write_text(f"name = {name!r}\n")
    monkeypatch.syspath_prepend(tmp_path)
    import shelf_of_modules

    try:
        assert [module.name for module in modules_in(shelf_of_modules)] == ["apple", "zebra"]
        (folder / "mango.py").write_text("name = 'mango'\n")
        assert [module.name for module in modules_in(shelf_of_modules)] == ["apple", "mango", "zebra"]
    finally:
        for name in [name for name in sys.modules if name.startswith("shelf_of_modules")]:
            del sys.modules[name]
