"""Fetching PEFT's tests: from the right archive or not at all."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from . import sdist, suite


def test_peft_suite_is_there() -> None:
    """Where PEFT's tests cannot be had, this test says why; the others are skipped."""
    error = suite.unavailable()
    if error is not None:
        pytest.fail(str(error), pytrace=False)
    assert set(suite.modules()) == set(sdist.MODULES)


def test_version_without_a_recorded_checksum_is_refused() -> None:
    """A PEFT that nobody has run the suite with is not downloaded unchecked."""
    with pytest.raises(sdist.SuiteUnavailable, match=r"peft 0\.0\.1 is not recorded"):
        sdist.recorded_checksum("0.0.1")


def test_other_archive_is_refused(tmp_path: Path) -> None:
    """An archive with another checksum is not unpacked."""
    with pytest.raises(ValueError, match=f"recorded is {'0' * 64}"):
        sdist.unpack(b"not the archive", "0.0.1", "0" * 64, tmp_path / "tests")
    assert not (tmp_path / "tests").exists()


def test_only_the_named_modules_are_unpacked(tmp_path: Path) -> None:
    """A path in the archive that leads elsewhere is never written."""
    archive = _archive({"../outside.py": "", "peft-0.0.1/setup.py": "", **_test_modules()})
    sdist.unpack(archive, "0.0.1", hashlib.sha256(archive).hexdigest(), tmp_path / "a" / "tests")
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {f"a/tests/{module}.py" for module in sdist.MODULES}


def test_archive_without_a_test_module_is_refused(tmp_path: Path) -> None:
    """The error names the file that is missing."""
    modules = _test_modules()
    del modules["peft-0.0.1/tests/testing_common.py"]
    archive = _archive(modules)
    with pytest.raises(ValueError, match=r"no file peft-0\.0\.1/tests/testing_common\.py"):
        sdist.unpack(archive, "0.0.1", hashlib.sha256(archive).hexdigest(), tmp_path / "tests")


def _test_modules() -> dict[str, str]:
    return {f"peft-0.0.1/tests/{module}.py": "" for module in sdist.MODULES}


def _archive(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content.encode()))
    return buffer.getvalue()
