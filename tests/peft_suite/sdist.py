"""PEFT's test modules: fetched from its source distribution, checked, unpacked and imported.

The tests are not in PEFT's wheel, and they are not ours to copy: only the sdist of the very version that is
installed has the tests that belong to it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import io
import subprocess
import sys
import tarfile
import tempfile
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from trimtab.files import new_directory

SHA256 = {"0.21.2": "b803ccfb3f3f316004d850284306687833a2235ea278fb56abc856203456142e"}
"""The sdist's checksum by version of PEFT, as the package index states it."""

MODULES = ("testing_utils", "testing_common", "test_custom_models", "test_decoder_models")
"""The only files that are unpacked; the last two are the tests, the others what they import."""

PACKAGE = "peft_own_tests"
"""The name under which they are imported; PEFT's own name for the folder, `tests`, is too common."""

DOWNLOAD_SECONDS = 300


class SuiteUnavailable(RuntimeError):  # noqa: N818  # it is a state, not a fault of the suite
    """PEFT's tests could not be had."""


def load(cache: Path) -> dict[str, ModuleType]:
    """The modules of PEFT's tests, by name; fetched into `cache` the first time.

    Raises:
        SuiteUnavailable: no checksum is recorded for the installed PEFT, or its sdist cannot be downloaded.
        ValueError: the archive is not the recorded one.
    """
    version = importlib.metadata.version("peft")
    checksum = recorded_checksum(version)
    folder = cache / f"peft-{version}"
    if not folder.is_dir():
        with new_directory(folder) as unfinished:
            unpack(download(version, checksum), version, checksum, unfinished / PACKAGE)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    pytest.register_assert_rewrite(PACKAGE)  # or a failed assertion of theirs would not say what it compared
    with _DiffusersNamed():
        return {name: importlib.import_module(f"{PACKAGE}.{name}") for name in MODULES}


def recorded_checksum(version: str) -> str:
    """The sha256 of PEFT's sdist of this version."""
    if version not in SHA256:
        raise SuiteUnavailable(
            f"The sha256 of the sdist of peft {version} is not recorded (known: {', '.join(SHA256)}). Add it "
            f"to {Path(__file__).name} and see that the suite passes with it."
        )
    return SHA256[version]


def download(version: str, checksum: str) -> bytes:
    """The sdist from the index that pip uses.

    With a checksum in the requirement, pip compares it before it does anything else with the file. Then it
    asks the package for its metadata, and fetches setuptools for that; nothing is built or installed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wanted = folder / "requirements.txt"
        wanted.write_text(f"peft=={version} --hash=sha256:{checksum}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
        command += [
            "--no-binary",
            "peft",
            "--require-hashes",
            "--requirement",
            str(wanted),
            "--dest",
            str(folder),
        ]
        try:
            result = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise SuiteUnavailable(f"pip download of peft {version} took over {error.timeout} s.") from error
        archives = list(folder.glob("*.tar.gz"))
        if result.returncode != 0 or len(archives) != 1:
            raise SuiteUnavailable(f"pip could not download the sdist of peft {version}:\n{result.stderr[-2000:]}")
        return archives[0].read_bytes()


def unpack(archive: bytes, version: str, checksum: str, folder: Path) -> None:
    """Write the test modules of a checked archive into a new folder.

    Only the named files are read from the archive, and each gets the name that is given here: what other
    paths the archive may hold does not matter.

    Raises:
        ValueError: the checksum differs, or a test module is missing.
    """
    found = hashlib.sha256(archive).hexdigest()
    if found != checksum:
        raise ValueError(f"The sdist of peft {version} has the sha256 {found}; recorded is {checksum}.")
    folder.mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for module in MODULES:
            path = f"peft-{version}/tests/{module}.py"
            member = tar.extractfile(path) if path in tar.getnames() else None
            if member is None:
                raise ValueError(f"The sdist of peft {version} has no file {path}.")
            (folder / f"{module}.py").write_bytes(member.read())


class _DiffusersNamed:
    """While PEFT's tests are imported, `diffusers` can be too: they use one class of it, in an isinstance."""

    def __enter__(self) -> None:
        self.missing = find_spec("diffusers") is None
        if self.missing:
            module = ModuleType("diffusers")
            module.StableDiffusionPipeline = type("StableDiffusionPipeline", (), {})  # type: ignore[attr-defined]
            sys.modules["diffusers"] = module

    def __exit__(self, *error: object) -> None:
        # Not kept: PEFT and transformers look for diffusers to decide what they can do.
        if self.missing:
            del sys.modules["diffusers"]
