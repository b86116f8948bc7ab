"""What a job prints, cut to a size: the beginning as it comes, then the end."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

BEGINNING = 4 * 2**20
END = 2**18
"""Bytes that are kept: of the first and of the last that a job prints."""
WAIT_S = 2.0
"""How long to wait for output after a job has ended: what it started may still hold the pipe."""


@contextmanager
def cut(target: int = 2) -> Iterator[int]:
    """A descriptor for a job's output; what is written there goes to `target`, cut to a size."""
    reading, writing = os.pipe()
    reader = threading.Thread(target=_copy, args=(reading, target), daemon=True)
    reader.start()
    try:
        yield writing
    finally:
        os.close(writing)
        reader.join(WAIT_S)


def _copy(source: int, target: int) -> None:
    left, dropped, end = BEGINNING, 0, b""
    while chunk := os.read(source, 1 << 16):
        now, later = chunk[:left], chunk[left:]
        left -= len(now)
        _write(target, now)
        end += later
        if len(end) > 2 * END:
            dropped += len(end) - END
            end = end[-END:]
    os.close(source)
    if len(end) > END:
        dropped += len(end) - END
        end = end[-END:]
    if dropped:
        _write(target, f"\n[{dropped:,} bytes of output are left out here]\n".encode())
    _write(target, end)


def _write(target: int, data: bytes) -> None:
    while data:
        data = data[os.write(target, data) :]
