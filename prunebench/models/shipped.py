"""The demo's model comes with the package, so that the demo prunes the same weights everywhere.

`prunebench pretrain --world` made it, in bfloat16; training.json beside it says with what. Another
kind of processor would train slightly different weights, and no two readers saw the same table.
"""

from __future__ import annotations

from pathlib import Path

from prunebench.errors import Invalid
from prunebench.files import sha256

DEMO_MODEL = Path(__file__).parent / "demo-llama"
WEIGHTS = "model.safetensors"
SHA256 = "30528b81f49664854c2ef393ba224068b26c2b4d0bbb4fd7185cb7f43d0bc15b"


def check_shipped() -> None:
    """Raise Invalid unless the demo's weights are those that came with the package."""
    path = DEMO_MODEL / WEIGHTS
    if not path.is_file():
        raise Invalid(f"the demo's model is missing: {path}; install the package again")
    if sha256(path) != SHA256:
        raise Invalid(f"the demo's model was changed: {path}; install the package again")
