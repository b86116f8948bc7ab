"""Prune one cell: the method decides, the suite cuts, verifies, saves and meters."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prunebench.campaign.config import Model
from prunebench.campaign.paths import CellPaths
from prunebench.campaign.specs import PruneSpec
from prunebench.decisions.changes import Weights, digests_of
from prunebench.errors import Failure, Invalid
from prunebench.identity import model_identity
from prunebench.jobs import decided, determinism, work
from prunebench.jobs.readback import Build, Folder, read_back
from prunebench.jobs.sampling import Sampler
from prunebench.jobs.work import JobIO
from prunebench.models import folders
from prunebench.plugins.ask import ask
from prunebench.plugins.context import Context
from prunebench.plugins.discovery import Plugin, locate
from prunebench.profiling.cost import Cost, meter
from prunebench.profiling.passes import counted
from prunebench.pruning.architectures import blocks_of, structures_of
from prunebench.pruning.budget import Budget
from prunebench.pruning.selection import TOLERANCE
from prunebench.pruning.structure import Decision, Structure
from prunebench.pruning.surgery import count_decoder_parameters, count_parameters, cut, logits
from prunebench.record.provenance import provenance
from prunebench.untyped import Json
from prunebench.whole import write_text

if TYPE_CHECKING:
    from prunebench.recovery import RecoverySettings

Deciding = Callable[[Plugin, PreTrainedModel, Context], Decision]
VERIFY_TOKENS = (2, 32)
NOT_SAVED = "not saved; regenerated from the seed"


def prune(spec: PruneSpec, io: JobIO, deciding: Deciding | None = None) -> Json:
    """Run a pruning job and describe its result. `io.inputs`: the row that it is matched to.

    deciding  takes the place of `decide`, for whoever wants to look at the model around it
    """
    determinism.ask(spec.seed, io.device)
    plugin = locate(spec.method, spec.plugins)
    removed = matched_counts(io.inputs)
    model, tokenizer = work.load_original(spec.model, io.device)
    dense = count_parameters(model), count_decoder_parameters(model)
    workdir = io.cell.work("prune")
    workdir.mkdir(parents=True, exist_ok=True)
    sampler = Sampler(spec, model, tokenizer)
    tokens = verify_tokens(model, spec.seed)
    before, weights = logits(model, tokens), Weights.of(model)
    with meter(io.device) as cost:
        context = make_context(spec, sampler, cost, workdir, removed)
        with counted(model, blocks_of(model), cost.see):
            decision = (deciding or decide)(plugin, model, context)
    changed = bool(decision.keep) or not torch.equal(before, logits(model, tokens))
    touched = weights.changed(model)
    verification, uniform = cut(model, decision, tokens)
    if not verification.passed:
        raise Failure(
            "the sliced model differs from the masked one by "
            f"{verification.max_abs_logit_difference:.2e} (tolerance {verification.tolerance:.0e})"
        )
    changes = decided.of_pruning(model, touched, spec.method)
    expected = digests_of(model) if context.adapter else {}
    del weights, touched  # they hold the layers that left
    exported = export(spec.model, model, tokenizer, decision, io.cell, changed, uniform)
    shutil.rmtree(workdir)
    folder = io.cell.folder / exported["path"] if exported["path"] else None
    result: Json = {
        "model": model_facts(spec.model, model, dense[0], folder),
        "sparsity": sparsity_facts(spec.sparsity, spec.sparsity_of, decision, model, dense),
        "decision": decision_facts(decision, context.structures),
        "verify": verification.to_dict(),
        "export": exported,
        "cost": {**cost.report(), **work.ran_as(model)},
        "method_notes": context.notes,
        "calibration": sampler.drawn,
        "timing": {"model_s": cost.report()["wall_s"]},
        "provenance": provenance(plugin_sha256=spec.plugin_sha256),
    }
    result["verify"]["read_back"] = check_kept(spec, io, model, decision, context, folder)
    given = (context.adapter, decision, lambda: work.load_original(spec.model, io.device)[0])
    changes = decided.by_adapter(changes, spec, *given, expected)
    result["decision_file"] = decided.keep_pruned(spec, io, result["model"], decision, changes)
    return result


def check_kept(
    spec: PruneSpec,
    io: JobIO,
    model: PreTrainedModel,
    decision: Decision,
    context: Context,
    folder: Path | None,
) -> float | None:
    """Prove that what later jobs load is `model`, which is emptied; the logits' difference, if any.

    Random weights are made again and cut by the decision, so only sizes can be compared. Raises
    Failure, and leaves no folder, where something would be lost.
    """
    if folder is not None:
        saved = Folder(folder, work.resolve_dtype(spec.model.dtype, io.device), io.device)
        try:
            return read_back(model, saved, verify_tokens(model, spec.seed))
        except Failure:
            shutil.rmtree(folder)
            raise
    count = count_decoder_parameters if spec.sparsity_of == "decoder" else count_parameters
    left, expected = count(model), context.budget.left_by(decision)
    if left != expected:
        raise Failure(
            f"the decision leaves {expected:,} parameters, the model has {left:,}: what a method "
            "adds to random weights is lost, for those are made again from the seed"
        )
    return None


def make_context(
    spec: PruneSpec,
    sampler: Sampler,
    cost: Cost,
    workdir: Path,
    removed: Mapping[str, int] | None = None,
) -> Context:
    """The Context of a method for one cell; `removed`: counts of the row that it is matched to."""
    model = sampler.model
    structures = structures_of(model)

    def tuning() -> tuple[list[dict[str, str]], RecoverySettings]:
        if spec.recovery is None:
            raise Invalid("the method needs tuning data: add `recovery` to the campaign")
        return spec.recovery.records(spec.data.open()), spec.recovery.settings()

    return Context(
        sparsity=spec.sparsity,
        seed=spec.seed,
        device=next(model.parameters()).device,
        params=spec.params,
        workdir=workdir,
        structures=structures,
        budget=Budget(model, structures, of=spec.sparsity_of),
        cost=cost,
        tokenizer=sampler.tokenizer,
        sample_calibration=sampler,
        load_recovery=tuning,
        multiple_of=spec.multiple_of,
        matched=removed,
    )


def decide(plugin: Plugin, model: PreTrainedModel, context: Context) -> Decision:
    """Let the method decide, and check what it returns and what it did to the weights."""
    before = Build.of(model)
    decision = ask(plugin, model, context, structures_of(model))
    before.check(model, plugin.name)
    broken = [n for n, p in model.named_parameters() if not bool(p.isfinite().all())]
    if broken:
        raise Failure(f"{plugin.name}: left weights that are not finite in {broken[0]}")
    return decision


def export(
    entry: Model,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    decision: Decision,
    cell: CellPaths,
    changed: bool,
    uniform: bool,
) -> Json:
    """Save the pruned model, if it changed, and describe what was saved: the record's `export`.

    Of random weights only the decision is kept, for the rest can be made again.
    """
    if entry.kind == "random":
        if decision.keep:
            write_text(cell.decision, decision.to_json())
        kept = cell.decision.name if decision.keep else None
        return {"status": "skipped", "reason": NOT_SAVED, "path": None, "decision": kept}
    loader = "transformers"
    if changed:
        text = decision.to_json()
        loader = folders.save(model, tokenizer, cell.model, uniform=uniform, decision=text)
    path = cell.model.name if changed else None
    return {"status": "ok", "loadable_by": loader, "path": path}


def decision_facts(decision: Decision, structures: Mapping[str, Structure]) -> dict[str, Json]:
    """The record's `decision` part: how many units each structure had and how many it keeps."""
    return {
        name: {
            "kind": structure.kind,
            "layer": structure.layer,
            "units": structure.units,
            "kept": len(decision.keep.get(name, range(structure.units))),
        }
        for name, structure in structures.items()
    }


def matched_counts(inputs: Sequence[Path]) -> dict[str, int] | None:
    """Units that left each structure in another cell, for a row that is matched to it."""
    if not inputs:
        return None
    try:
        found = work.read_stage(inputs[0])["decision"]
    except work.Unavailable as error:
        reason = f"the row that it is matched to has no decision: {error}"
        raise work.Unavailable(error.status, reason) from None
    return {name: s["units"] - s["kept"] for name, s in found.items() if s["kept"] < s["units"]}


def verify_tokens(model: PreTrainedModel, seed: int) -> torch.Tensor:
    """Fixed random token ids on which the masked and the sliced model are compared."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.config.vocab_size, VERIFY_TOKENS, generator=generator)


def model_facts(entry: Model, model: PreTrainedModel, dense: int, folder: Path | None) -> Json:
    """The record's `model` part: what was pruned, by content, and what came out."""
    revision = entry.revision
    original: dict[str, str] = {}
    imported = None
    if entry.kind != "random":
        place = work.original_folder(entry)
        original = model_identity(place)
        imported = folders.describe(place).get("imported_from")
        revision = place.name if place.parent.name == "snapshots" else revision
    unpruned = original.get("weights_sha256") if count_parameters(model) == dense else None
    return {
        "family": model.config.model_type,
        "kind": entry.kind,
        "source": entry.source,
        "revision": revision,
        "dtype": str(model.dtype).removeprefix("torch."),
        "parameters_dense": dense,
        "parameters": count_parameters(model),
        "weights_sha256": folders.weights_digest(folder) if folder else unpruned,
        "original_weights_sha256": original.get("weights_sha256"),
        "original_files_sha256": original.get("files_sha256"),
        "imported": imported,
    }


def sparsity_facts(
    target: float,
    share: Literal["model", "decoder"],
    decision: Decision,
    model: PreTrainedModel,
    dense: tuple[int, int],
) -> Json:
    """The record's `sparsity` part: what was asked for, and what really left."""
    achieved = 1.0 - count_parameters(model) / dense[0]
    of_decoder = 1.0 - count_decoder_parameters(model) / dense[1]
    native = decision.how.get("native_ratio")
    within = abs((of_decoder if share == "decoder" else achieved) - target) <= TOLERANCE
    note = None
    if not within:
        note = "units are too coarse for the target" if native is None else f"native ratio {native}"
        note = "counts of the row that it is matched to" if "matched" in decision.how else note
    return {
        "target": target,
        "achieved": achieved,
        "decoder_achieved": of_decoder,
        "native_ratio": native,
        "native": native is not None,
        "multiple_of": decision.how.get("multiple_of") or None,
        "within_tolerance": within,
        "note": note,
    }


def main() -> None:
    """Run the job of the command line."""
    work.main(prune, PruneSpec, inputs="*")


if __name__ == "__main__":
    main()
