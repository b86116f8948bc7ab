"""Room on a disk: looked at before something large is written, and said when there was none."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from prunebench.errors import Failure

MB = 10**6
FULL = (errno.ENOSPC, errno.EDQUOT)
SAID = ("No space left on device", "Disk quota exceeded", "PytorchStreamWriter failed writing")
"""The same where a library passes it on as text."""


def check_room(place: Path, needed: int) -> None:
    """Raise Failure, with how much is missing, where so many bytes do not fit beside `place`."""
    free = _free(place)
    if free < needed:
        raise Failure(
            f"disk full: {_mb(needed)} MB are needed for {place}, {_mb(free)} MB are free, "
            f"{_mb(needed - free)} MB are missing"
        )


def why_full(error: BaseException) -> str | None:
    """What to say of an error that a full disk made; None for any other."""
    text = str(error)
    if not (isinstance(error, OSError) and error.errno in FULL) and not any(
        words in text for words in SAID
    ):
        return None
    file = getattr(error, "filename", None)
    place = Path(os.fsdecode(file)) if file is not None else Path.cwd()
    return f"disk full: {_mb(_free(place))} MB are free for {place}, which was not enough"


def _free(place: Path) -> int:
    """Bytes that may still be written beside `place`, whose folders may not be there yet."""
    folder = place.absolute()
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _mb(size: int) -> str:
    """Rounded up, so that what is missing is never nothing."""
    return f"{-(-size // MB):,}"
