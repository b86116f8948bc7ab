"""The file of a decision, `decision.json.gz`: what is kept, of which weights, and what comes out.

Where a method changes no weights, this is all. Those that were changed lie beside it in
`delta.safetensors`: whole tensors as they are after the cut, and the matrices of a LoRA adapter
that was merged before it or after. The file names the delta by digest, has a checksum itself, and
names the weights that come out by the digest that the cell's record has. Imports no torch.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zlib
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from prunebench.errors import Invalid
from prunebench.files import sha256
from prunebench.record.explain import explained
from prunebench.record.parts import Closed, Size, Text
from prunebench.untyped import Json, JsonMap
from prunebench.whole import as_plain, write_bytes

NAME, DELTA = "decision.json.gz", "delta.safetensors"
LARGEST = 2**28
"""Bytes of a decision, unpacked, beyond which a file is none: of a 70B model it has 20 MB."""


class Origin(Closed):
    """The dense checkpoint that a decision is about."""

    kind: Text = Field(description="Where it comes from (hub, local, demo).")
    source: Text = Field(description="Hub id or folder.")
    revision: str | None = Field(description="Commit on the hub; null elsewhere.")
    family: Text = Field(description="Architecture family.")
    dtype: Text = Field(description="Type in which the weights were read.")
    weights_sha256: Text = Field(description="Digest of its weights.")


class Adapter(Closed):
    """A LoRA adapter that was merged."""

    rank: Size = Field(description="Rank of its matrices.")
    alpha: float = Field(description="Its scale is alpha / rank.")
    before_cut: bool = Field(description="Whether it was merged before the cut, or after it.")


class Delta(Closed):
    """The file of changed weights."""

    sha256: Text = Field(description="Its digest.")
    bytes: Size = Field(description="Its size.")
    adapter: Adapter | None = Field(description="The adapter in it; null: none.")


class DecisionFile(Closed):
    """A decision with all that it takes to carry it out, and to know that it was."""

    format: Literal[1] = 1
    method: Text = Field(description="Name of the plugin that decided.")
    sparsity: float = Field(description="Target share.")
    seed: int = Field(description="Seed of the cell.")
    tuned: bool = Field(description="Whether the suite tuned the model after the cut.")
    origin: Origin
    keep: dict[str, list[int]] = Field(description="Structure -> units that stay.")
    how: Json = Field(description="How the decision was reached.")
    delta: Delta | None = Field(description="The changed weights; null: none were changed.")
    refused: str | None = Field(
        description="Why the weights cannot be made again from this file; null: they can."
    )
    device: Text = Field(description="Where the weights were computed: cpu or cuda.")
    parameters: Size = Field(description="Parameters of the model that comes out.")
    weights_sha256: Text = Field(description="Digest of its weights.")

    @property
    def text(self) -> str:
        """The decision alone, as `pruning.structure.Decision` writes it."""
        return json.dumps({"keep": self.keep, "how": self.how}, sort_keys=True) + "\n"


def write(path: Path, file: DecisionFile) -> None:
    """Write a decision's file whole: the same bytes for the same decision."""
    body = as_plain(file.model_dump(mode="json"), str(path))
    assert isinstance(body, dict)
    sealed = {**body, "checksum": _digest(body)}
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as packed:
        packed.write(_canonical(sealed))
    write_bytes(path, buffer.getvalue())


def read(path: Path) -> DecisionFile:
    """The file of a decision. Raises Invalid, in one line, where it is none, cut or edited."""
    raw = _parse(path)
    claimed = raw.pop("checksum", None)
    if raw.get("format") != 1:
        raise Invalid(f"{path}: format: expected 1, got {raw.get('format')!r}")
    if claimed != _digest(raw):
        raise Invalid(f"{path}: was changed after it was written: its checksum does not fit")
    try:
        return DecisionFile.model_validate(raw)
    except ValidationError as error:
        raise Invalid(f"{path}: {explained(error)}") from None


def check_delta(path: Path, file: DecisionFile) -> Path | None:
    """The delta that lies beside a decision at `path`; None where it needs none.

    Raises Invalid where it is missing, cut short or another one.
    """
    if file.delta is None:
        return None
    beside = path.with_name(DELTA)
    if not beside.is_file():
        raise Invalid(f"{beside}: is missing; {path.name} needs it for the weights that changed")
    if (size := beside.stat().st_size) != file.delta.bytes:
        raise Invalid(f"{beside}: expected {file.delta.bytes:,} bytes, found {size:,}")
    if sha256(beside) != file.delta.sha256:
        raise Invalid(f"{beside}: is not the file that {path.name} was written with")
    return beside


def _parse(path: Path) -> Json:
    try:
        with gzip.open(path) as packed:
            data = packed.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise Invalid(f"{path}: is larger than any decision")
        found = json.loads(data)
    except FileNotFoundError:
        raise Invalid(f"{path}: no such file; expected a cell's {NAME}") from None
    except IsADirectoryError:
        raise Invalid(f"{path}: is a folder, expected a file {NAME}") from None
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        kind = type(error).__name__
        raise Invalid(f"{path}: not a whole {NAME} ({kind}: {error})") from None
    if not isinstance(found, dict):
        raise Invalid(f"{path}: expected a JSON object, got {type(found).__name__}")
    return found


def _canonical(mapping: JsonMap) -> bytes:
    text = json.dumps(mapping, allow_nan=False, separators=(",", ":"), sort_keys=True)
    return text.encode("utf-8", "backslashreplace")


def _digest(mapping: JsonMap) -> str:
    return hashlib.sha256(_canonical(mapping)).hexdigest()
