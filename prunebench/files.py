"""Files of text, JSON lines and YAML: read whole, cut into rows, and named when they are broken."""

from __future__ import annotations

import codecs
import hashlib
import json
import lzma
import re
from collections.abc import Iterator
from pathlib import Path

from prunebench.errors import Invalid
from prunebench.untyped import Foreign

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


def read_yaml(path: Path) -> Foreign:
    """Parse a YAML file. Raises Invalid with the place of the mistake."""
    import yaml

    if not path.is_file():
        raise Invalid(f"{path}: no such file")

    # The parser in C, where the wheel has it: most files are read in every job.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(read_text(path), Loader=loader)
    except yaml.YAMLError as error:
        raise Invalid(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None


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


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def joined(parts: list[str]) -> str:
    """One digest for several in their order; that of a single file stays what it is."""
    if len(parts) == 1 and " " not in parts[0]:
        return parts[0]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
