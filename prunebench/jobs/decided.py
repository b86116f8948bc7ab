"""What pruning and tuning jobs keep of their decision, and how a removed model comes back."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor
from transformers import PreTrainedModel

from prunebench.campaign.config import Model
from prunebench.campaign.settings import Recovery
from prunebench.campaign.specs import PruneSpec, RecoverSpec
from prunebench.decisions import form
from prunebench.decisions.changes import Place, digests_of, named, size
from prunebench.decisions.form import Adapter
from prunebench.decisions.keeping import LORA, WEIGHT, Changed, keep
from prunebench.errors import Failure, Invalid, Unsupported
from prunebench.pruning.structure import Decision
from prunebench.pruning.surgery import slice_model
from prunebench.recovery.lora import remerge
from prunebench.untyped import Json, JsonMap

if TYPE_CHECKING:
    from prunebench.jobs.work import JobIO

RANDOM = {"status": "skipped", "reason": "random weights: made again from the seed"}
SAME = {"status": "skipped", "reason": "nothing was changed: the weights are the checkpoint's"}
OLD = {"status": "skipped", "reason": "it was pruned by a version that kept no decisions"}


def of_pruning(model: PreTrainedModel, touched: set[Place], plugin: str) -> Changed:
    """What a method changed, as it is in `model` after the cut."""
    return Changed(whole=named(model, touched)).within(_bytes(model), plugin)


def by_adapter(
    changed: Changed,
    spec: PruneSpec,
    adapter: dict[str, Tensor],
    decision: Decision,
    original: Callable[[], PreTrainedModel],
    expected: dict[str, str],
) -> Changed:
    """The changes as the adapter that a method merged before the cut, where it explains them all.

    That is tried: the original is loaded, merged and cut anew. A method that was given other
    weights than these (of few bits, shrunk on the way) keeps `changed`.

    expected  digest of every parameter of the model that was cut
    """
    if not adapter or spec.recovery is None or spec.model.kind == "random":
        return changed
    settings = spec.recovery.settings()
    model = original()
    try:
        remerge(model, adapter, rank=settings.rank, alpha=settings.alpha)
        slice_model(model, decision)
    except Invalid:
        return changed
    if digests_of(model) != expected:
        return changed
    merged = Changed(lora=adapter, adapter=_adapter(spec.recovery, before_cut=True))
    return merged.within(_bytes(model), spec.method)


def keep_pruned(
    spec: PruneSpec, io: JobIO, facts: JsonMap, decision: Decision, changed: Changed
) -> Json:
    """The record's `decision_file` of a pruning job, whose file this writes."""
    if spec.model.kind == "random":
        return RANDOM
    if facts["weights_sha256"] == facts["original_weights_sha256"]:
        return SAME
    made = {"method": spec.method, "sparsity": spec.sparsity, "seed": spec.seed, "tuned": False}
    units = {name: list(kept) for name, kept in decision.keep.items()}
    given: Json = {"facts": facts, "changed": changed, "made": made, "device": io.device}
    return keep(io.cell.decision_file, decision=(units, dict(decision.how)), **given)


def keep_tuned(
    spec: RecoverSpec,
    io: JobIO,
    pruned: JsonMap,
    facts: JsonMap,
    model: PreTrainedModel,
    adapter: dict[str, Tensor],
) -> Json:
    """The same of a tuning job: the decision that it began from, and its adapter beside it."""
    if spec.model.kind == "random":
        return RANDOM
    made: Json = {"method": "dense", "sparsity": 0.0, "seed": spec.seed}
    units: dict[str, list[int]] = {}
    how: Json = {}
    changed = Changed()
    before = pruned.get("decision_file") or OLD
    if before["status"] == "ok":
        path = io.inputs[0].with_name(before["file"])
        file = form.read(path)
        made = {"method": file.method, "sparsity": file.sparsity, "seed": file.seed}
        units, how = file.keep, file.how
        changed = Changed(whole=_whole(path, file), refused=file.refused)
    elif pruned["model"]["weights_sha256"] != pruned["model"]["original_weights_sha256"]:
        return dict(before)
    if changed.refused is None:
        changed.lora = adapter
        changed.adapter = _adapter(spec.recovery, before_cut=False)
        changed = changed.within(_bytes(model), "tuning")
    given: Json = {"facts": facts, "changed": changed, "device": io.device}
    return keep(io.cell.decision_file, decision=(units, how), made={**made, "tuned": True}, **given)


def bring_back(path: Path, result: JsonMap, model: Model, original: Path, device: str) -> None:
    """Make the model folder of an earlier job again where it was removed and can be made.

    path  its result. Raises Invalid, naming the folder, where it cannot.
    """
    folder = path.parent / result["export"]["path"]
    kept = result.get("decision_file") or OLD
    if folder.is_dir():
        return
    if kept["status"] != "ok":
        raise Invalid(f"{folder}: is missing, and cannot be made again: {kept['reason']}")
    from prunebench.decisions.applying import build

    decision = path.with_name(kept["file"])
    with decision.open("rb") as held:  # one process makes it, others wait for it
        fcntl.flock(held, fcntl.LOCK_EX)
        if folder.is_dir():
            return
        code = model.trust_remote_code
        try:
            build(decision, form.read(decision), original, folder, device=device,
                  trust_remote_code=code)  # fmt: skip
        except (Failure, Unsupported) as error:
            raise Invalid(f"{folder}: is missing, and cannot be made again: {error}") from None


def _adapter(recovery: Recovery, *, before_cut: bool) -> Adapter:
    settings = recovery.settings()
    return Adapter(rank=settings.rank, alpha=settings.alpha, before_cut=before_cut)


def _whole(path: Path, file: form.DecisionFile) -> dict[str, Tensor]:
    """The whole tensors in the delta of a pruning job."""
    from safetensors.torch import load_file

    delta = form.check_delta(path, file)
    found = {} if delta is None else load_file(delta)
    return {n[len(WEIGHT) :]: t for n, t in found.items() if not n.startswith(LORA)}


def _bytes(model: PreTrainedModel) -> int:
    return size({name: parameter.detach() for name, parameter in model.named_parameters()})
