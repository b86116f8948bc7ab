"""Make the pruned weights again: from a decision's file, its delta and the dense checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from prunebench.decisions import form
from prunebench.decisions.form import DecisionFile
from prunebench.decisions.keeping import LORA, WEIGHT
from prunebench.errors import Failure, Invalid, Unsupported
from prunebench.identity import model_identity
from prunebench.models import folders
from prunebench.models.shipped import locate
from prunebench.pruning.structure import Decision
from prunebench.pruning.surgery import slice_model
from prunebench.record import store
from prunebench.recovery.lora import remerge
from prunebench.whole import whole_folder


@dataclass(frozen=True)
class Applied:
    """What was made. loader: who can load it; delta: bytes that came from beside the decision."""

    file: DecisionFile
    loader: str
    decision_bytes: int
    delta_bytes: int

    def lines(self) -> list[str]:
        """The result in words."""
        file = self.file
        delta = f" and {self.delta_bytes:,} of changed weights" if self.delta_bytes else ""
        tuned = ", tuned" if file.tuned else ""
        return [
            f"{file.method} at {file.sparsity:g}, seed {file.seed}{tuned}: {file.parameters:,} "
            f"parameters from {self.decision_bytes:,} bytes{delta}",
            f"weights {file.weights_sha256}, as recorded; {self.loader} loads them",
        ]


def apply(decision: Path, out: Path, *, model: str | None = None, device: str = "cpu") -> Applied:
    """Write the model of a decision to `out`, whole and proved by digest, or nothing.

    decision  a file decision.json.gz, or the folder of a cell that has one
    model     folder or hub id of the dense checkpoint; default: where the decision had it from

    Raises Invalid for a file that is none, edited or without its delta, for another checkpoint, and
    where `out` exists or cannot be written; Unsupported, with the reason, where the file does not
    hold what it takes; Failure where other weights come out than the recorded ones.
    """
    path = decision / form.NAME if decision.is_dir() else decision
    file = form.read(path)
    _check_record(path, file)
    if out.exists():
        raise Invalid(f"{out}: exists already; give a folder that does not")
    origin = file.origin
    source = model or (
        origin.source if origin.kind == "hub" else str(locate(origin.kind, origin.source))
    )
    revision = origin.revision if (origin.kind, origin.source) == ("hub", source) else None
    loader = build(path, file, folders.folder_of(source, revision), out, device=device)
    delta = file.delta.bytes if file.delta else 0
    return Applied(file, loader, path.stat().st_size, delta)


def build(
    path: Path,
    file: DecisionFile,
    original: Path,
    out: Path,
    *,
    device: str,
    trust_remote_code: bool = False,
) -> str:
    """Make the folder `out` from the checkpoint in `original`; who can load it. As `apply`."""
    if file.refused is not None:
        raise Unsupported(f"{path}: the weights cannot be made again from it: {file.refused}")
    delta = form.check_delta(path, file)
    found = model_identity(original)["weights_sha256"]
    if found != file.origin.weights_sha256:
        raise Invalid(
            f"{original}: is another checkpoint than the one that was pruned ({file.origin.source},"
            f" {file.origin.family}): expected weights {file.origin.weights_sha256[:16]}..., found "
            f"{found[:16]}..."
        )
    model, tokenizer = folders.load(
        original, dtype=file.origin.dtype, device=device, trust_remote_code=trust_remote_code
    )
    uniform = cut(model, file, path, delta)
    text = None if file.tuned else file.text
    try:
        with whole_folder(out) as draft:
            loader = folders.save(model, tokenizer, draft, uniform=uniform, decision=text)
            _prove(folders.weights_digest(draft), file, device)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise Invalid(f"{out}: cannot be written: {why}; nothing is left of it") from None
    return loader


def cut(model: PreTrainedModel, file: DecisionFile, path: Path, delta: Path | None) -> bool:
    """Turn the dense model into the decision's, in place; whether the stock class can build it.

    Raises Invalid where decision or delta do not fit it.
    """
    decision = Decision({name: tuple(units) for name, units in file.keep.items()}, file.how)
    tensors = {} if delta is None else _read(delta, next(model.parameters()).device)
    lora = {n[len(LORA) :]: t for n, t in tensors.items() if n.startswith(LORA)}
    adapter = None if file.delta is None else file.delta.adapter
    if adapter is not None and adapter.before_cut:
        remerge(model, lora, rank=adapter.rank, alpha=adapter.alpha)
    try:
        uniform = slice_model(model, decision)
    except Invalid as error:
        raise Invalid(f"{path}: does not fit the model: {error}") from None
    _put(model, {n[len(WEIGHT) :]: t for n, t in tensors.items() if n.startswith(WEIGHT)}, delta)
    if adapter is not None and not adapter.before_cut:
        remerge(model, lora, rank=adapter.rank, alpha=adapter.alpha)
    return uniform


def _read(delta: Path, device: torch.device) -> dict[str, Tensor]:
    try:
        return load_file(delta, device=str(device))
    except SafetensorError as error:
        raise Invalid(f"{delta}: is cut off or no safetensors at all: {error}") from None


@torch.no_grad()
def _put(model: nn.Module, tensors: Mapping[str, Tensor], delta: Path | None) -> None:
    """Give parameters the values of the delta; a bias that a method added is added."""
    known = dict(model.named_parameters(remove_duplicate=False))
    for name, tensor in tensors.items():
        owner, _, leaf = name.rpartition(".")
        if name in known:
            if known[name].shape != tensor.shape:
                shapes = f"{tuple(tensor.shape)}, the model has {tuple(known[name].shape)}"
                raise Invalid(f"{delta}: {name} has shape {shapes}")
            known[name].copy_(tensor)
        elif leaf == "bias" and isinstance(module := _module(model, owner), nn.Linear):
            module.bias = nn.Parameter(tensor)
        else:
            raise Invalid(f"{delta}: the model has no parameter {name}")


def _module(model: nn.Module, path: str) -> nn.Module | None:
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None


def _check_record(path: Path, file: DecisionFile) -> None:
    """Raise Invalid where the record beside a decision is of other weights."""
    beside = path.with_name("record.json")
    if not beside.is_file():
        return
    record = store.read(beside)
    recorded = record.model.weights_sha256 if record.model else None
    if recorded != file.weights_sha256:
        raise Invalid(f"{path}: is of other weights than {beside}")


def _prove(found: str, file: DecisionFile, device: str) -> None:
    if found == file.weights_sha256:
        return
    hint = ""
    if device.partition(":")[0] != file.device:
        hint = f"; they were computed on {file.device}: try --device {file.device}"
    raise Failure(
        f"other weights come out than the recorded ones: expected {file.weights_sha256[:16]}..., "
        f"got {found[:16]}...{hint}; nothing was written"
    )
