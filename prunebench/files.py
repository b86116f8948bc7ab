"""Files of text, JSON lines and YAML: read whole, cut into rows, and named when they are broken."""

from __future__ import annotations

import hashlib
import json
import lzma
import re
from pathlib import Path
from typing import Any

from prunebench.errors import Invalid


def read_text(path: Path) -> str:
    """A UTF-8 file, packed by xz or not. Raises Invalid, naming it, when it is neither."""
    try:
        if path.suffix == ".xz":
            return lzma.decompress(path.read_bytes()).decode("utf-8")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Invalid(f"{path}: expected UTF-8: {error.reason} at byte {error.start}") from None
    except lzma.LZMAError as error:
        raise Invalid(f"{path}: not a whole xz file: {error}") from None


def read_yaml(path: Path) -> Any:
    """Parse a YAML file. Raises Invalid with the place of the mistake."""
    import yaml

    # The parser in C, where the wheel has it: most files are read in every job.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    except FileNotFoundError:
        raise Invalid(f"{path}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
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


def json_lines(path: Path) -> list[tuple[int, Any]]:
    """(line number, value) of each line. Raises Invalid with file and line, or for none."""
    parsed = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            parsed.append((number, json.loads(line)))
        except ValueError as error:
            raise Invalid(f"{path}:{number}: not valid JSON: {error}") from None
    if not parsed:
        raise Invalid(f"{path}: expected one JSON object per line, found none")
    return parsed


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
