"""Which process runs a campaign: so that a killed run's locks can go, and a live one is named.

Snakemake's locks are files without an owner; after `kill -9` they stay and stop the next call. A
run therefore holds a lock of the operating system on `.running` in the campaign's folder, which the
kernel lets go when the process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from prunebench.errors import Failure

logger = logging.getLogger(__name__)

NAME = ".running"
_held: dict[Path, IO[str]] = {}


def hold(folder: Path) -> None:
    """Say that this process runs the campaign of `folder`, until the process ends.

    Raises Failure, naming the other process, where one runs it already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / NAME).open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Failure(f"{folder}: {_owner(folder)} is running this campaign; wait for it") from None
    except OSError as error:  # a file system without such locks: Snakemake's own must do
        logger.warning("%s: cannot be locked (%s)", folder, error.strerror)
        return
    file.truncate(0)
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": since}, file)
    file.flush()
    _held[folder.resolve()] = file


def clear_stale(locks: Path, folder: Path) -> list[Path]:
    """Remove Snakemake's locks that a run which has ended left in `locks`; returns their files.

    folder  of the campaign that is about to run. Where another process runs it, that is logged and
            nothing is removed. A lock is stale if it names files of campaigns, and of no campaign
            that is running or that never said so; any other lock is left to its owner.
    """
    if is_running(folder):
        logger.warning("%s: %s is running this campaign", folder, _owner(folder))
        return []
    removed = []
    for lock in sorted(locks.glob("*.lock")):
        campaigns = set(_campaigns(lock))
        if campaigns and all(is_running(campaign) is False for campaign in campaigns):
            lock.unlink(missing_ok=True)
            removed.append(lock)
    return removed


def is_running(folder: Path) -> bool | None:
    """Whether a process runs the campaign of `folder`; None where nobody can tell."""
    try:
        with (folder / NAME).open("r+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def _campaigns(lock: Path) -> Iterator[Path]:
    """The folders of the campaigns whose files a lock of Snakemake names."""
    for line in lock.read_text(encoding="utf-8", errors="replace").splitlines():
        parent, inside, _ = line.partition("/cells/")
        if inside:
            yield Path(parent)
        elif line.endswith(("/leaderboard.md", "/complete")):
            yield Path(line).parent


def _owner(folder: Path) -> str:
    try:
        found = json.loads((folder / NAME).read_text(encoding="utf-8"))
        return f"process {found['pid']} on {found['host']} (since {found['since']})"
    except (OSError, ValueError, KeyError):
        return "another process"
