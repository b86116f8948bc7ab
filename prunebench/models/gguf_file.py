"""A GGUF file read and checked: its keys, and its tensors' names and types, before any weight is.

The format is that of ggml's documentation (docs/gguf.md), read through the package `gguf`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prunebench.errors import Invalid, Unsupported
from prunebench.untyped import Foreign, Plain

MAGIC = b"GGUF"
AGAIN = "fetch the file again"


@dataclass(frozen=True)
class GgufFile:
    """What a GGUF file says of itself.

    keys     every key with its value, as plain Python values
    tensors  every tensor's name with the name of its type, such as Q4_1
    """

    path: Path
    keys: Mapping[str, Plain]
    tensors: Mapping[str, str]

    @property
    def architecture(self) -> str:
        """Its architecture under llama.cpp's name."""
        return str(self.need("general.architecture", str))

    @property
    def quantisation(self) -> dict[str, int]:
        """How many tensors there are of each type, the most frequent first."""
        return dict(Counter(self.tensors.values()).most_common())

    def need(self, key: str, kind: type[str] | type[int] | type[float] | type[list[str]]) -> Plain:
        """The value of a key. Raises Invalid if the file lacks it, or has another type there."""
        if key not in self.keys:
            raise Invalid(
                f"{self.path}: has no key {key}; convert the model with a newer llama.cpp"
            )
        value = self.keys[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise Unsupported(
                f"{self.path}: {key}: expected one {kind.__name__}, got {type(value).__name__}"
            )
        return value


def read_gguf(path: Path) -> GgufFile:
    """Read and check a file's keys and its table of tensors.

    Raises Invalid for a file that is missing, cut short or no GGUF file, or if the package `gguf`
    is missing; Unsupported for a part of a split file, and for a tensor type without a reader.
    """
    _check_kind(path)
    reader, keys = _opened(path)
    tensors = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    if (parts := keys.get("split.count", 1)) > 1:
        raise Unsupported(
            f"{path}: one of {parts} parts of a model; join them with `llama-gguf-split --merge`"
        )
    if reader.byte_order != "I":
        raise Unsupported(f"{path}: its numbers are big-endian; only little-endian files are read")
    for kind in {tensor.tensor_type for tensor in reader.tensors}:
        _check_readable(path, kind, [n for n, name in tensors.items() if name == kind.name])
    return GgufFile(path, keys, tensors)


def _check_kind(path: Path) -> None:
    if not path.is_file():
        raise Invalid(f"{path}: no such file; give the path of a GGUF file")
    with path.open("rb") as file:
        start = file.read(len(MAGIC))
    if start != MAGIC:
        raise Invalid(f"{path}: not a GGUF file: expected it to begin with GGUF, got {start!r}")


def _opened(path: Path) -> tuple[Foreign, dict[str, Plain]]:
    """The package's reader, and every key with its value."""
    try:
        from gguf import GGUFReader
    except ImportError:
        raise Invalid(
            f"{path}: the package gguf is not installed; `pip install gguf` and try again"
        ) from None
    try:
        reader = GGUFReader(path)
        fields = reader.fields.items()
        return reader, {k: f.contents() for k, f in fields if not k.startswith("GGUF.")}
    except Exception as error:  # a cut file ends its reader at any point, in numpy as well
        text = " ".join(str(error).split())
        if "GGMLQuantizationType" in text:
            raise Unsupported(
                f"{path}: a tensor's type is unknown to the package gguf ({text}); take another "
                "quantisation of the model, such as Q8_0"
            ) from None
        if "appears to be version" in text:
            raise Unsupported(f"{path}: {text}; take a newer file of the model") from None
        raise Invalid(f"{path}: cut short or damaged ({text}); {AGAIN}") from None


def _check_readable(path: Path, kind: Foreign, names: list[str]) -> None:
    """Raise Unsupported unless `gguf` has arithmetic that turns this type into float32."""
    import numpy as np
    from gguf import GGML_QUANT_SIZES, dequantize

    block = np.zeros((1, GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
    try:
        dequantize(block, kind)
    except NotImplementedError:
        raise Unsupported(
            f"{path}: tensors of type {kind.name} ({names[0]} and {len(names) - 1} more) cannot be "
            "read; take another quantisation of the model, such as Q8_0"
        ) from None
