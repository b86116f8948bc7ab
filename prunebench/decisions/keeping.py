"""A job keeps its decision: the file, and beside it the weights that were changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from prunebench.decisions import form
from prunebench.decisions.changes import size
from prunebench.decisions.form import Adapter, DecisionFile, Delta, Origin
from prunebench.files import sha256
from prunebench.units import MIB
from prunebench.untyped import Json, JsonMap
from prunebench.whole import write_bytes

LARGEST_SHARE = 0.25
"""A delta of more than this share of the weights is not kept: it would be the model itself."""
WEIGHT = "weight/"
"""Before the name of a whole tensor in a delta; matrices of an adapter begin with LORA."""
LORA = "lora/"


@dataclass
class Changed:
    """What a job did to the weights beside cutting.

    whole    names after the cut -> tensors; None where they are too many to be kept
    lora     names of an adapter's matrices -> tensors
    adapter  its settings
    refused  why the changes are not kept
    """

    whole: dict[str, Tensor] = field(default_factory=dict)
    lora: dict[str, Tensor] = field(default_factory=dict)
    adapter: Adapter | None = None
    refused: str | None = None

    def within(self, weights: int, by: str) -> Changed:
        """The same on the CPU, or the reason why it is too much; weights: bytes of the model's."""
        taken = size(self.whole) + size(self.lora)
        if self.refused is not None or taken <= LARGEST_SHARE * weights:
            whole, lora = (
                {name: tensor.detach().cpu().clone() for name, tensor in part.items()}
                for part in (self.whole, self.lora)
            )
            return Changed(whole, lora, self.adapter, self.refused)
        share = taken / weights
        why = f"{by} changed {taken / MIB:.1f} MiB, {share:.0%} of the weights; a delta is kept "
        return Changed(refused=f"{why}up to {LARGEST_SHARE:.0%}")


def keep(
    path: Path,
    *,
    facts: JsonMap,
    decision: tuple[dict[str, list[int]], Json],
    changed: Changed,
    made: JsonMap,
    device: str,
) -> Json:
    """Write the decision's file to `path`, and the delta beside it; returns a record's part.

    facts     the record's `model` part of the model that came out
    decision  what is kept, and how that was reached
    made      method, sparsity, seed, tuned
    """
    keys = ("kind", "source", "revision", "family", "dtype")
    origin = Origin(
        **{key: facts[key] for key in keys}, weights_sha256=facts["original_weights_sha256"]
    )
    file = DecisionFile(
        **made,
        origin=origin,
        keep=decision[0],
        how=decision[1],
        delta=_write_delta(path.with_name(form.DELTA), changed),
        refused=changed.refused,
        device=device.partition(":")[0],
        parameters=facts["parameters"],
        weights_sha256=facts["weights_sha256"],
    )
    form.write(path, file)
    return part_of(path, file)


def part_of(path: Path, file: DecisionFile) -> Json:
    """The record's `decision_file` of a file that was written to `path`."""
    delta: Json | None = None
    if file.delta is not None:
        delta = {"status": "ok", "file": form.DELTA, "sha256": file.delta.sha256}
        delta["bytes"] = file.delta.bytes
    if file.refused is not None:
        delta = {"status": "skipped", "reason": file.refused}
    bytes_ = path.stat().st_size
    return {"status": "ok", "file": path.name, "sha256": sha256(path), "bytes": bytes_,
            "delta": delta}  # fmt: skip


def _write_delta(path: Path, changed: Changed) -> Delta | None:
    from safetensors.torch import save

    tensors = {f"{WEIGHT}{name}": tensor for name, tensor in changed.whole.items()}
    tensors |= {f"{LORA}{name}": tensor for name, tensor in changed.lora.items()}
    if changed.refused is not None or not tensors:
        return None
    write_bytes(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}))
    return Delta(sha256=sha256(path), bytes=path.stat().st_size, adapter=changed.adapter)
