"""Where, when and with what a number was made."""

from __future__ import annotations

import functools
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import prunebench
from prunebench.devices import cpu_name
from prunebench.untyped import Json

PACKAGES = tuple(
    "accelerate datasets lm_eval numpy peft safetensors tokenizers torch transformers".split()
)


def provenance(
    *,
    device: str | None = None,
    plugin_sha256: str | None = None,
    data_sha256: Mapping[str, str | None] | None = None,
    packages: tuple[str, ...] = PACKAGES,
) -> Json:
    """Where, when and with what a record is made; imports none of the packages it names.

    `device` is what did the work; without it, the GPU if this process used one, else the CPU.
    """
    commit, dirty = _git_state()
    return {
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "prunebench_version": prunebench.__version__,
        "git_commit": commit,
        "git_dirty": dirty,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: _package_version(name) for name in packages},
        "device": device or _device_name(),
        "plugin_sha256": plugin_sha256,
        "data_sha256": dict(data_sha256 or {}),
    }


def _device_name() -> str:
    # a process that never imported torch cannot have used a GPU
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return str(torch.cuda.get_device_name())
    return cpu_name()


@functools.cache
def _package_version(name: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


@functools.cache
def _git_state() -> tuple[str | None, bool | None]:
    """Commit and dirtiness of the checkout that this library is part of; (None, None) outside one.

    An installed copy may lie inside the checkout of another project: only a tracked file counts.
    """
    here = Path(__file__)

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here.parent), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain"))
    except (OSError, subprocess.SubprocessError):
        return None, None
