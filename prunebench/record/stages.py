"""Results of jobs as files: sealed when written, checked when read, linked to what they rest on.

A result holds, beside what was measured and the spec of its job:

    read      product of each result that the job read, under its place below `cells`
    written   digest of each file that the job wrote beside the result
    checksum  SHA-256 of everything else in it

Its `product` is the digest of what others build on: all of it but times and costs. So an edited
result, a swapped model and a result of another pruning are found before they become a number.
Results of versions that knew none of this are read as they are; `is_sealed` tells them apart.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

from prunebench.errors import Invalid
from prunebench.files import stays_inside
from prunebench.record import digests
from prunebench.record.explain import short
from prunebench.untyped import Json, JsonMap
from prunebench.whole import as_plain, write_json

STATUSES = ("ok", "failed", "skipped")
VOLATILE = ("checksum", "cost", "method_notes", "provenance", "read", "timing", "tuning")
"""What differs between two runs that computed the same, and what they rested on."""
FILES = {"prune": "the pruning job", "recover": "the tuning job", "evaluate": "the evaluation"}
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
ADVICE = "`prunebench retry` lets the job run again"


def write(path: Path, result: JsonMap) -> None:
    """Write a result whole, with its checksum. Raises Invalid for what JSON has no form for."""
    plain = as_plain(result, str(path))
    assert isinstance(plain, dict)
    body = {key: value for key, value in plain.items() if key != "checksum"}
    write_json(path, {**body, "checksum": _digest(body)})


def read(path: Path) -> Json:
    """A result. Raises Invalid, in one line, for a file that is none or was changed."""
    result = parse(path)
    status, reason = result.get("status"), result.get("reason")
    if status not in STATUSES:
        raise Invalid(f"{path}: status: expected one of {', '.join(STATUSES)}, got {short(status)}")
    if status != "ok" and not (isinstance(reason, str) and reason):
        raise Invalid(f"{path}: reason: expected why it {status}, got {short(reason)}")
    for key in ("spec", "read", "written"):
        if not isinstance(result.get(key, {}), dict):
            raise Invalid(f"{path}: {key}: expected an object, got {short(result[key])}")
    if outside := [name for name in result.get("written", {}) if not stays_inside(name)]:
        raise Invalid(f"{path}: written: {short(outside[0])} is no file beside it; {ADVICE}")
    body = {key: value for key, value in result.items() if key != "checksum"}
    if is_sealed(result) and result["checksum"] != _digest(body):
        raise Invalid(f"{path}: was changed after it was written; {ADVICE}")
    return result


def parse(path: Path) -> Json:
    """A file as a JSON object. Raises Invalid for anything else, and for NaN and infinity."""

    def refuse(constant: str) -> None:
        raise Invalid(f"{path}: holds {constant}, which is not a number in JSON; {ADVICE}")

    try:
        text = path.read_bytes().decode("utf-8")
        found: object = json.loads(text, parse_constant=refuse)
    except FileNotFoundError:
        raise Invalid(f"no result: {path} is missing") from None
    except OSError as error:
        raise Invalid(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise Invalid(f"{path}: byte {error.start} is not UTF-8; {ADVICE}") from None
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{path}: not valid JSON: {error}; {ADVICE}") from None
    if not isinstance(found, dict):
        raise Invalid(f"{path}: expected a JSON object, got {short(found)}; {ADVICE}")
    check_readable(text, found, str(path))
    return found


def check_readable(text: str, found: object, where: str) -> None:
    """Raise Invalid where JSON holds half a character (a lone surrogate), which nothing can show.

    text  of the file, in which such a one can only stand as an escape
    """
    if not SURROGATE.search(text):
        return
    try:
        json.dumps(found, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise Invalid(f"{where}: a text in it holds a lone surrogate") from None


def is_sealed(result: JsonMap) -> bool:
    """Whether a result has a checksum; those of older versions have none."""
    return "checksum" in result


def product(result: JsonMap) -> str:
    """Digest of what others build on."""
    return _digest({key: value for key, value in result.items() if key not in VOLATILE})


def place(path: Path) -> str:
    """Where a result lies below `cells`, wherever the campaign's folder is."""
    return "/".join(path.parts[-5:])


def rests_on(inputs: Iterable[Path]) -> Json:
    """`read` of a job with these inputs; null for one that is no result."""
    found: Json = {}
    for path in inputs:
        try:
            found[place(path)] = product(read(path))
        except Invalid:
            found[place(path)] = None
    return found


def check_written(path: Path, result: JsonMap) -> None:
    """Raise Invalid, naming the file, where one that the job of this result wrote is another now.

    All of them are read, at the speed of the disk. Older results name no files: nothing is checked.
    """
    digests.check(path.parent, result.get("written", {}), by=FILES.get(path.stem, "its job"))


def _digest(mapping: JsonMap) -> str:
    canonical = json.dumps(mapping, allow_nan=False, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(canonical.encode("utf-8", "backslashreplace")).hexdigest()
