"""Files of text, JSON lines and YAML: read whole, cut into rows, and named when they are broken."""

from __future__ import annotations

import codecs
import hashlib
import json
import lzma
import math
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from prunebench.errors import Invalid
from prunebench.untyped import Foreign

YAML_BYTES = 4 * 2**20
YAML_VALUES = 200_000
MARK = codecs.BOM_UTF8
"""A byte order mark: some editors put it first; it is no part of the text."""


def read_text(path: Path) -> str:
    """A UTF-8 file, packed by xz or not; lines end in a line feed, a byte order mark is dropped.

    Raises Invalid, naming the file, when it is not UTF-8 or not whole.
    """
    try:
        data = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
        return data.removeprefix(MARK).decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise Invalid(f"{path}: expected UTF-8: {error.reason} at byte {error.start}") from None
    except (lzma.LZMAError, EOFError) as error:
        raise Invalid(f"{path}: not a whole xz file: {error}") from None


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line without its end) of a file that may be too large to be read at once.

    Only a line feed ends a line, with a carriage return before it or not: U+2028, U+2029 and
    U+0085 may stand inside a JSON string. A byte order mark is dropped.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            yield number, (line.removeprefix(MARK) if number == 1 else line).rstrip(b"\r\n")


NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+")
"""A number with an exponent as everybody writes it: 2e-3, which to YAML 1.1 is text."""


def read_yaml(path: Path) -> Foreign:
    """Parse a YAML file. Raises Invalid, with the place, for a mistake or what is not plain data.

    Refused are also doubled keys, of which YAML takes the last; numbers that no job could be given
    (NaN, infinity, beyond 64 bits); anchors that blow up a small file; and templates that run code.
    """
    import yaml

    if not path.is_file():
        what = "is a folder, expected a YAML file" if path.is_dir() else "no such file"
        raise Invalid(f"{path}: {what}")
    try:
        if path.stat().st_size > YAML_BYTES:
            raise Invalid(f"{path}: is larger than {YAML_BYTES >> 20} MiB, which no such file is")
        loader = _loader()(read_text(path))
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _count(node, path, {})
            found: Foreign = loader.construct_document(node)
        finally:
            loader.dispose()
        check_plain(found, str(path))
        return found
    except yaml.YAMLError as error:
        raise Invalid(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except OSError as error:
        raise Invalid(f"{path}: cannot be read: {error.strerror}") from None
    except RecursionError:
        raise Invalid(f"{path}: nested too deeply") from None
    except (ValueError, TypeError, AttributeError) as error:  # of a date or a tag that is none
        raise Invalid(f"{path}: not valid YAML: {error}") from None


def _count(node: Foreign, path: Path, known: dict[int, int]) -> int:
    """Values below a node, aliases written out. Raises Invalid for too many and for doubled keys.

    known  node -> its count; 0 while it is being counted
    """
    if (before := known.get(id(node))) is not None:
        if before == 0:
            raise Invalid(f"{path}:{node.start_mark.line + 1}: an anchor that holds itself")
        return before
    known[id(node)], total = 0, 1
    line = node.start_mark.line + 1
    if node.id == "mapping":
        seen = set()
        for key, value in node.value:
            if key.id == "scalar" and key.value in seen and key.value != "<<":
                raise Invalid(f"{path}:{key.start_mark.line + 1}: key {key.value!r} stands twice")
            if key.value == "__use_yte__":
                raise Invalid(f"{path}:{line}: __use_yte__: templates run code and are not read")
            seen.add(key.value if key.id == "scalar" else id(key))
            total += _count(key, path, known) + _count(value, path, known)
    elif node.id == "sequence":
        total += sum(_count(item, path, known) for item in node.value)
    if total > YAML_VALUES:
        raise Invalid(f"{path}:{line}: more than {YAML_VALUES} values, aliases written out")
    known[id(node)] = total
    return total


def check_plain(value: Foreign, where: str, key: str = "") -> None:
    """Raise Invalid, naming the key, for a value that no job could be given as JSON."""
    at = f"{where}: {key or 'top level'}"
    if isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                raise Invalid(f"{at}: key {name!r}: expected text; put it in quotes")
            check_plain(name, where, key)
            check_plain(item, where, f"{key}.{name}" if key else name)
    elif isinstance(value, (list, tuple)):
        for position, item in enumerate(value):
            check_plain(item, where, f"{key}[{position}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise Invalid(f"{at}: {value} is no number that can be computed with")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise Invalid(f"{at}: {str(value)[:24]}... is beyond 64 bits")
    elif isinstance(value, str) and not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise Invalid(f"{at}: holds a lone surrogate, which is no character") from None


@cache
def _loader() -> Foreign:
    """PyYAML's safe loader, to which `2e-3` is a number too."""
    import yaml

    # The parser in C, where the wheel has it: most files are read in every job.
    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        pass

    whole = re.compile(f"^{NUMBER.pattern}\\Z")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", whole, list("-+.0123456789"))
    return Loader


def cut_rows(text: str, how: str) -> list[str]:
    """Rows of a corpus; `how` is explained at prunebench.text.source.Corpus.rows."""
    if how == "stories":
        return [story.strip() for story in text.split("<|endoftext|>") if story.strip()]
    if how == "paragraphs":
        return [" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip()]
    lines = text.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    if how == "wikitext":
        return [line + "\n" if line.strip() else "" for line in lines]
    return [line.strip() for line in lines]


def json_lines(path: Path) -> list[tuple[int, Foreign]]:
    """(line number, value) of each line. Raises Invalid with file and line, or for none."""
    parsed = []
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        try:
            parsed.append((number, json.loads(line)))
        except UnicodeDecodeError as error:
            where = f"{path}:{number}"
            raise Invalid(f"{where}: expected UTF-8: {error.reason} at {error.start}") from None
        except ValueError as error:
            raise Invalid(f"{path}:{number}: not valid JSON: {error}") from None
    if not parsed:
        raise Invalid(f"{path}: expected one JSON object per line, found none")
    return parsed


def stays_inside(name: object) -> bool:
    """Whether a path that a file names stays below that file's folder."""
    if not isinstance(name, str) or not name or "\0" in name:
        return False
    return not Path(name).is_absolute() and ".." not in Path(name).parts


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def joined(parts: list[str]) -> str:
    """One digest for several in their order; that of a single file stays what it is."""
    if len(parts) == 1 and " " not in parts[0]:
        return parts[0]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
