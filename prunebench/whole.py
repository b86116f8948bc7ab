"""Files and folders that appear whole or not at all, whenever the process dies.

All writing goes through here: a temporary name beside the target, sync, rename. After an error
nothing is left; what a killed process left is removed by the next one that writes the same target.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from prunebench.errors import Invalid

Plain = str | int | float | None | list["Plain"] | dict[str, "Plain"]
"""What JSON has a form for."""


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Yield a path to write to; it becomes `target` when the block ends well.

    The temporary file lies in the same folder, for a rename is atomic only within a file system.
    """
    target = Path(target)
    draft = _draft(target)
    try:
        yield draft
        sync(draft)
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)
    sync(target.parent)


@contextmanager
def whole_folder(target: Path, *, owned_by: str | None = None) -> Iterator[Path]:
    """Yield an empty folder to fill; it becomes `target` when the block ends well.

    A folder that is there already is replaced. With `owned_by` it may hold files only if it is an
    earlier product, known by its file of that name; otherwise Invalid: a slip of the path must
    never delete somebody's files.
    """
    target = Path(target)
    if owned_by is not None:
        _check_owner(target, owned_by)
    draft = _draft(target)
    replaced = draft.with_name(draft.name + ".old")
    try:
        draft.mkdir()
        yield draft
        for path in (path for path in draft.rglob("*") if path.is_file()):
            sync(path)
        sync(draft)
        if target.exists():
            os.rename(target, replaced)
        try:
            os.rename(draft, target)
        except OSError:
            if replaced.exists():
                os.rename(replaced, target)
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)
    sync(target.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder so that a kill on the way leaves it whole, or nothing of its name."""
    draft = _draft(path)
    os.rename(path, draft)
    shutil.rmtree(draft, ignore_errors=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole."""
    with whole_file(path) as draft:
        draft.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file whole, with line ends as they are; a lone surrogate as its escape."""
    write_bytes(path, readable(text).encode())


def write_json(path: Path, mapping: Mapping[str, object]) -> None:
    """Write JSON whole: sorted keys, one space of indent, no NaN, a newline at the end.

    Raises Invalid, naming file and key, for what JSON has no form for.
    """
    text = json.dumps(
        as_plain(mapping, str(path)), allow_nan=False, ensure_ascii=False, indent=1, sort_keys=True
    )
    write_text(path, text + "\n")


def as_plain(value: object, where: str, key: str = "") -> Plain:
    """A copy of dicts, lists and scalars; raises Invalid, naming the key, for anything else."""
    if isinstance(value, Mapping):
        return {
            readable(str(name)): as_plain(item, where, f"{key}.{name}" if key else str(name))
            for name, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [as_plain(item, where, f"{key}[{position}]") for position, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise Invalid(f"{where}: {key}: {value} is no number in JSON; use null with a reason")
    if isinstance(value, str):
        return readable(value)
    if value is None or isinstance(value, (int, float)):
        return value
    raise Invalid(f"{where}: {key}: {type(value).__name__} has no form in JSON")


def readable(text: str) -> str:
    """The text, with its lone surrogates (of names that are no UTF-8) written as their escapes.

    No table, page or terminal could show them.
    """
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _check_owner(target: Path, owned_by: str) -> None:
    if target.exists() and not target.is_dir():
        raise Invalid(f"{target}: expected a folder to write to, found a file; choose another path")
    holds_files = target.is_dir() and any(p.is_file() for p in target.rglob("*"))
    if holds_files and not (target / owned_by).is_file():
        raise Invalid(
            f"{target}: expected an empty folder or one with {owned_by}, found other files; "
            "choose another path"
        )


def left_behind(root: Path) -> list[Path]:
    """Temporary files and folders below `root` whose process, on this machine, is gone."""
    found = []
    for path in sorted(root.rglob(".*-*.partial*")):
        process = path.name.partition(".partial")[0].rpartition("-")[0].rpartition(".")[2]
        if process.isdigit() and not _is_running(process) and path.exists():
            found.append(path)
    return found


def _draft(target: Path) -> Path:
    """A new hidden name beside the target; those that dead processes left are removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{target.name}.*-*.partial*"):
        if not _is_running(left.name.removeprefix(f".{target.name}.").partition("-")[0]):
            shutil.rmtree(left, ignore_errors=True)
            left.unlink(missing_ok=True)
    return target.with_name(f".{target.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.partial")


def _is_running(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError, OverflowError):
        pass
    return True


def sync(path: Path) -> None:
    """Put a file's content, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
