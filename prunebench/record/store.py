"""One cell's results as one JSON file: written whole or not at all, and checked when read.

A record is a mapping in the form of `schemas/record.schema.yaml`. Its `checksum` covers everything
else in it, so that a number that was changed by hand is noticed.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunebench.errors import Invalid
from prunebench.files import read_yaml
from prunebench.schema import quick_validator_of, validator_of
from prunebench.whole import as_plain, write_json

SCHEMA_VERSION = 1


def write(path: Path, mapping: Mapping[str, Any]) -> None:
    """Validate a record and write it atomically; `schema_version` and `checksum` are set here.

    Raises Invalid (naming file and key) if the mapping violates the schema or holds NaN; then
    nothing is written.
    """
    body = {"schema_version": SCHEMA_VERSION} | as_plain(_without_checksum(mapping), str(path))
    validate(body, str(path))
    write_json(path, body | {"checksum": checksum(body)})


def read(path: Path) -> dict[str, Any]:
    """Read a record as it was given to `write`.

    Raises Invalid, naming file and key, for a file that is absent, truncated, not UTF-8, of another
    schema version, against the schema, changed since it was written, or that holds NaN.
    """
    where = str(path)
    body = _parse(Path(path), where)
    _check_form(body, where)
    found = body.pop("checksum", None)
    if found is None:
        raise Invalid(f"{where}: checksum: missing; the record was not written by prunebench")
    if found != _checksum(body, where):
        raise Invalid(
            f"{where}: checksum: does not fit the content, so the file was changed after it was "
            "written; delete it and run the cell again"
        )
    return body


def validate(mapping: Mapping[str, Any], where: str) -> None:
    """Raise Invalid, naming `where` and the key, unless the mapping is a record of this version."""
    _check_form(as_plain(mapping, where) if isinstance(mapping, Mapping) else mapping, where)


def _check_form(plain: Any, where: str) -> None:
    """`validate` of what is plain JSON already; walking over all of it would take longer."""
    if not isinstance(plain, dict):
        raise Invalid(f"{where}: expected a JSON object, got {_short(plain)}")
    _check_version(plain, where)
    if _quick_validator().is_valid(plain):
        return
    as_plain(plain, where)  # a number too large for a float became infinity when it was parsed
    found = validator_of(_schema()).iter_errors(plain)
    errors = sorted(found, key=lambda error: _key(error.absolute_path))
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    raise Invalid(f"{where}: {_describe(errors[0]) if errors else 'not a record'}{more}")


def checksum(mapping: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a record without its checksum."""
    return hashlib.sha256(_canonical(_without_checksum(mapping)).encode()).hexdigest()


def _checksum(body: Mapping[str, Any], where: str) -> str:
    try:
        return checksum(body)
    except ValueError:  # infinity, where the schema admits anything
        as_plain(body, where)
        raise


def _canonical(mapping: Mapping[str, Any]) -> str:
    return json.dumps(mapping, allow_nan=False, separators=(",", ":"), sort_keys=True)


def _without_checksum(mapping: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key != "checksum"}


def _parse(path: Path, where: str) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise Invalid(f"{where}: holds {constant}, which is not a number in JSON")

    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except OSError as error:
        raise Invalid(f"{where}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Invalid(f"{where}: byte {error.start} is not UTF-8; the file is damaged") from error
    except json.JSONDecodeError as error:
        raise Invalid(
            f"{where}: truncated or not JSON at line {error.lineno}, column {error.colno} "
            f"({error.msg}); delete it and run the cell again"
        ) from error
    except RecursionError as error:
        raise Invalid(f"{where}: nested too deeply to be a record") from error


def _check_version(mapping: Mapping[str, Any], where: str) -> None:
    version = mapping.get("schema_version")
    if version == SCHEMA_VERSION and type(version) is int:
        return
    advice = "run the cell again"
    if isinstance(version, int) and version > SCHEMA_VERSION:
        advice = "it was written by a newer prunebench: update this one"
    raise Invalid(
        f"{where}: schema_version: expected {SCHEMA_VERSION}, got {_short(version)}; {advice}"
    )


@functools.cache
def _schema() -> Any:
    return read_yaml(Path(__file__).parent.parent / "schemas" / "record.schema.yaml")


@functools.cache
def _quick_validator() -> Any:
    return quick_validator_of(_schema())


def _describe(error: Any) -> str:
    """One line for one violation: the key, what was expected, what came."""
    key = _key(error.absolute_path)
    if error.validator == "required":
        absent = [name for name in error.validator_value if name not in error.instance]
        return f"{_join(key, absent[0])}: missing"
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        unknown = sorted(name for name in error.instance if name not in known)
        return f"{_join(key, unknown[0])}: unknown key; known: {', '.join(sorted(known))}"
    expected = error.validator_value
    if error.validator == "anyOf":
        expected = "null or what the schema describes"
    return f"{key}: expected {error.validator} {_short(expected)}, got {_short(error.instance)}"


def _key(path: Any) -> str:
    key = ""
    for part in path:
        key = f"{key}[{part}]" if isinstance(part, int) else _join(key, str(part))
    return key


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _short(value: Any, width: int = 80) -> str:
    text = str(value) if isinstance(value, list) else repr(value)
    return text if len(text) <= width else text[: width - 1] + "…"
