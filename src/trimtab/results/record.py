"""What every record has in common: it goes to JSON and back, and is refused where its schema is another."""

from __future__ import annotations

import json
import math
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from trimtab.files import write_text
from trimtab.registry import unknown
from trimtab.results.accuracy import Accuracy
from trimtab.results.environment import Environment

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Record:
    """A result that can be written to a JSON file and read back."""

    def to_dict(self) -> dict[str, Any]:
        """Version of the schema, kind of record and every field, as JSON has them: NaN and infinity are None."""
        return {"schema_version": SCHEMA_VERSION, "kind": type(self).__name__, **_plain(asdict(self))}

    def save(self, path: Path) -> None:
        """Write this record to `path` as JSON."""
        write_text(path, json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a record that `save` wrote.

        Raises:
            ValueError: no JSON, another schema version, another kind of record, a missing or a surplus key.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(
                f"{path} holds no record: {error}. Delete it, and what it records is done again."
            ) from error
        return cls.from_dict(content, path)

    @classmethod
    def from_dict(cls, content: dict[str, Any], path: Path) -> Self:
        """The record that `to_dict` wrote; `path`, where it was read, is for messages.

        A field with a default may be missing: an earlier version did not write it. None where a number belongs is NaN.

        Raises:
            ValueError: as `load`.
        """
        content = dict(content)
        version, kind = content.pop("schema_version", None), content.pop("kind", None)
        if version != SCHEMA_VERSION:
            raise ValueError(f"{path} has schema version {version}, this trimtab reads version {SCHEMA_VERSION}.")
        if kind != cls.__name__:
            raise ValueError(f"{path} holds a record of kind {kind!r}, not {cls.__name__!r}.")
        names = {each.name for each in fields(cls)}
        needed = {each.name for each in fields(cls) if each.default is each.default_factory is MISSING}
        if missing := needed - content.keys():
            raise ValueError(f"{path} lacks {', '.join(sorted(missing))}.")
        for key in content.keys() - names:
            raise unknown(f"key in {path}", key, names)
        for each in fields(cls):
            kind = str(each.type)
            if each.name in content and "float" in kind and "None" not in kind:
                content[each.name] = _with_nan(content[each.name])
        if "environment" in names:
            content["environment"] = Environment(**content["environment"])
        if isinstance(content.get("accuracy"), dict):  # of a RunRecord it is a number
            content["accuracy"] = Accuracy(**content["accuracy"])
        return cls(**content)


def _plain(value: Any) -> Any:
    """A value as JSON has it, which knows no number that is not finite."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _with_nan(value: Any) -> Any:
    """Numbers as `_plain` wrote them, in lists and dicts: NaN where there was none."""
    if isinstance(value, dict):
        return {key: _with_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_with_nan(each) for each in value]
    return math.nan if value is None else value
