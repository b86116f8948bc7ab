"""Which checkpoint a tuning may resume from: complete, and of the same tuning.

The Trainer writes a checkpoint file by file into its folder. `seal` writes `complete.json` last,
with the digest of every file and the identity of the tuning; a folder without a seal that fits was
left by a kill, is damaged, or belongs to another tuning, and is removed.

Adapter weights are safetensors. The Trainer's own optimizer, schedule and random states are
`torch.save` files; it reads them with `weights_only=True`, and they never leave the work folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from prunebench.record import digests
from prunebench.untyped import Module
from prunebench.whole import sync, write_json

logger = logging.getLogger(__name__)

SEAL = "complete.json"


@dataclass(frozen=True)
class Seal:
    """What `complete.json` holds beside the digests of the files."""

    identity: str  # digest of settings, data, seed and weights
    step: int
    wall_s: float  # spent up to here, over all runs
    skipped_steps: int


def identity(model: Module, *parts: str) -> str:
    """Digest of a tuning: `parts` (settings, data, seed) and the weights that it starts from.

    Of each frozen parameter up to 256 evenly spaced values are read, so that a 7B model takes
    a moment; of trainable ones (drawn from the seed) only name and shape.
    """
    digest = hashlib.sha256("\n".join(parts).encode())
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        if not parameter.requires_grad and parameter.numel():
            flat = parameter.detach().reshape(-1)
            sample = flat[:: max(1, flat.numel() // 256)].float().cpu().contiguous()
            digest.update(sample.numpy().tobytes())
    return digest.hexdigest()


def seal(folder: Path, content: Seal) -> None:
    """Declare the checkpoint in `folder` complete, once all its files are on the disk."""
    files = list(_files(folder))
    for path in files:
        sync(path)
    write_json(folder / SEAL, {**asdict(content), "files": digests.of_files(folder, files)})


def latest(root: Path, identity: str) -> tuple[Path, Seal] | None:
    """The newest complete checkpoint of this tuning under `root`; all others are removed."""
    found = []
    for folder in sorted(root.glob("checkpoint-*")):
        content = _read(folder)
        if content is None or content.identity != identity:
            reason = "incomplete or damaged" if content is None else "of another tuning"
            logger.warning("checkpoint %s is %s: not used, removed", folder.name, reason)
            shutil.rmtree(folder)
        else:
            found.append((folder, content))
    return max(found, key=lambda pair: pair[1].step, default=None)


def _read(folder: Path) -> Seal | None:
    """The seal of `folder`, or None where it is absent, damaged or does not fit the files."""
    try:
        content = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        files = content.pop("files")
        return None if digests.changed(folder, files) else Seal(**content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _files(folder: Path) -> Iterable[Path]:
    # A seal of an earlier attempt at the same step would vouch for files that are gone.
    return [path for path in folder.iterdir() if path.is_file() and path.name != SEAL]
