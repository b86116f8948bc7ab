"""Fast digests of files that jobs hand to each other, to tell damage from what was written.

XXH3 of 128 bits runs at the speed of memory, so that a model is checked in the time that reading it
takes. It tells a flipped bit, a cut or a swapped file; it is no defence against somebody who wants
to deceive. What identifies a model or a corpus in a record is SHA-256, as before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import xxhash

from prunebench.errors import Invalid

BLOCK = 2**22


def of_file(path: Path) -> str:
    """`<size>-<XXH3 in hexadecimal>` of a file."""
    digest, size = xxhash.xxh3_128(), 0
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
            size += len(block)
    return f"{size}-{digest.hexdigest()}"


def of_files(folder: Path, paths: Iterable[Path]) -> dict[str, str]:
    """Path relative to `folder` -> digest, of files and of all files in folders."""
    found = {}
    for path in paths:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            found[file.relative_to(folder).as_posix()] = of_file(file)
    return found


def missing(folder: Path, written: Mapping[str, str]) -> list[str]:
    """Files that are not there or have another size; no content is read."""
    return [name for name, digest in written.items() if not _has_size(folder / name, digest)]


def changed(folder: Path, written: Mapping[str, str]) -> list[str]:
    """Files that are not there or hold something else; all are read."""
    return [
        name
        for name, digest in written.items()
        if not _has_size(folder / name, digest) or of_file(folder / name) != digest
    ]


def check(folder: Path, written: Mapping[str, str], *, by: str) -> None:
    """Raise Invalid, naming the file, where one is not as it was written.

    by  who wrote it, for the message
    """
    for name in changed(folder, written):
        path = folder / name
        what = "is not what" if path.is_file() else "is missing, which"
        raise Invalid(f"{path}: {what} {by} wrote; `prunebench retry` lets it be made again")


def _has_size(path: Path, digest: str) -> bool:
    try:
        return str(path.stat().st_size) == digest.partition("-")[0]
    except OSError:
        return False
