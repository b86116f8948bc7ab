"""Where the models of this machine lie: the one that comes with the package, and local folders.

The demo's comes with the package, so that the demo prunes the same weights everywhere.

`prunebench pretrain --world` made it, in bfloat16; training.json beside it says with what. Another
kind of processor would train slightly different weights, and no two readers saw the same table.
"""

from __future__ import annotations

import os
from pathlib import Path

from prunebench.errors import Invalid
from prunebench.files import sha256

DEMO_MODEL = Path(__file__).parent / "demo-llama"
MODELS_VARIABLE = "PRUNEBENCH_MODELS"
WEIGHTS = "model.safetensors"
SHA256 = "30528b81f49664854c2ef393ba224068b26c2b4d0bbb4fd7185cb7f43d0bc15b"


def check_shipped() -> None:
    """Raise Invalid unless the demo's weights are those that came with the package."""
    path = DEMO_MODEL / WEIGHTS
    if not path.is_file():
        raise Invalid(f"the demo's model is missing: {path}; install the package again")
    if sha256(path) != SHA256:
        raise Invalid(f"the demo's model was changed: {path}; install the package again")


def locate(kind: str, source: str) -> Path:
    """Folder of a model's weights: below $PRUNEBENCH_MODELS if it does not exist by itself."""
    if kind == "demo":
        return DEMO_MODEL
    given = Path(source).expanduser()
    root = os.environ.get(MODELS_VARIABLE)
    beside = kind == "local" and root and not given.is_absolute() and not given.is_dir()
    return Path(root) / given if beside and root else given
