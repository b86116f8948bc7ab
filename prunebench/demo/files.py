"""Folders that appear whole or not at all, and digests of files."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prunebench.errors import Invalid


@contextmanager
def folder(target: Path, *, owned_by: str) -> Iterator[Path]:
    """Yield a draft folder beside `target`; put it in its place when the block ends well.

    `target` may hold files only if it is an earlier product, known by its file `owned_by`;
    otherwise `Invalid`: a slip of the path must never delete somebody's files.
    """
    target = Path(target)
    if target.exists() and not target.is_dir():
        raise Invalid(f"{target}: expected a folder to write to, found a file; choose another path")
    holds_files = target.is_dir() and any(p.is_file() for p in target.rglob("*"))
    if holds_files and not (target / owned_by).is_file():
        raise Invalid(
            f"{target}: expected an empty folder or one with {owned_by}, found other files; "
            "choose another path"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        draft = work / "draft"
        draft.mkdir()
        yield draft
        if target.exists():
            os.rename(target, work / "old")
        os.rename(draft, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
