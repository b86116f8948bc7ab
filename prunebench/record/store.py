"""One cell's results as one JSON file: written whole or not at all, and checked when read.

Its form is `record.form.Record`. Its `checksum` covers everything else in it, so that a number that
was changed by hand is noticed. There is one reader, for records of older versions of this library
too: what they did not know is absent in them.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import ValidationError

from prunebench.errors import Invalid
from prunebench.record.explain import explained, short
from prunebench.record.form import SCHEMA_VERSION, Record
from prunebench.record.stages import check_readable
from prunebench.untyped import Json, JsonMap
from prunebench.whole import as_plain, write_json


def write(path: Path, mapping: JsonMap) -> Record:
    """Check a record and write it whole; `schema_version` and `checksum` are set here.

    Raises Invalid (naming file and key) if the mapping is no record or holds NaN; then nothing is
    written.
    """
    plain = {key: as_plain(value, str(path), key) for key, value in mapping.items()}
    body = {"schema_version": SCHEMA_VERSION, **_without_checksum(plain)}
    record = record_of(body, str(path))
    write_json(path, body | {"checksum": _digest(body)})
    return record


def read(path: Path) -> Record:
    """Read a record as it was given to `write`.

    Raises Invalid, naming file and key, for a file that is absent, truncated, not UTF-8, of another
    schema version, of another form, changed since it was written, or that holds NaN.
    """
    where = str(path)
    body = _parse(Path(path), where)
    if not isinstance(body, dict):
        raise Invalid(f"{where}: expected a JSON object, got {short(body)}")
    _check_version(body, where)
    claimed = body.pop("checksum", None)
    record = record_of(body, where)
    if claimed is None:
        raise Invalid(f"{where}: checksum: missing; the record was not written by prunebench")
    if claimed != _checksum(body, where):
        raise Invalid(
            f"{where}: checksum: does not fit the content, so the file was changed after it was "
            "written; delete it and run the cell again"
        )
    return record


def record_of(mapping: JsonMap, where: str) -> Record:
    """A mapping as a Record. Raises Invalid, naming `where` and the key, if it is none."""
    _check_version(mapping, where)
    try:
        return Record.model_validate(_without_checksum(mapping))
    except ValidationError as error:
        as_plain(mapping, where)  # a number too large for a float became infinity when it was read
        raise Invalid(f"{where}: {explained(error)}") from None


def as_mapping(record: Record) -> Json:
    """A record as plain data, as it was read: what it did not say is not in it."""
    return record.model_dump(exclude_unset=True)


def checksum(record: Record) -> str:
    """SHA-256 of the canonical JSON of a record."""
    return _digest(as_mapping(record))


def _checksum(body: JsonMap, where: str) -> str:
    try:
        return _digest(body)
    except ValueError:  # infinity, where the form admits anything
        as_plain(body, where)
        raise


def _digest(mapping: JsonMap) -> str:
    canonical = json.dumps(mapping, allow_nan=False, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _without_checksum(mapping: JsonMap) -> Json:
    return {key: value for key, value in mapping.items() if key != "checksum"}


def _parse(path: Path, where: str) -> object:
    def refuse(constant: str) -> None:
        raise Invalid(f"{where}: holds {constant}, which is not a number in JSON")

    try:
        text = path.read_text(encoding="utf-8")
        found: object = json.loads(text, parse_constant=refuse)
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
    check_readable(text, found, where)
    return found


def _check_version(mapping: JsonMap, where: str) -> None:
    version = mapping.get("schema_version")
    if version == SCHEMA_VERSION and type(version) is int:
        return
    advice = "run the cell again"
    if isinstance(version, int) and version > SCHEMA_VERSION:
        advice = "it was written by a newer prunebench: update this one"
    raise Invalid(
        f"{where}: schema_version: expected {SCHEMA_VERSION}, got {short(version)}; {advice}"
    )
